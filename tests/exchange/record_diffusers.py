"""Records what diffusers computes with the networks of formula.py, as tests/exchange/fixtures/diffusers.npz.

It runs in two environments, of which the second one has torch, diffusers and safetensors, and no genbench:

    PYTHONPATH=.:tests/exchange python tests/exchange/record_diffusers.py write FOLDER
    python tests/exchange/record_diffusers.py read FOLDER tests/exchange/fixtures/diffusers.npz
"""

import json
import pathlib
import sys

import numpy as np


def write(folder):
    """Both exports, and the inputs."""
    import formula

    from genbench.exchange import diffusers, diffusers_dit, safetensors

    for prefix, layout, (config, module, params) in (
        ('', diffusers, formula.network()),
        ('dit_', diffusers_dit, formula.transformer()),
    ):
        for name, one_late in (('same', False), ('late', True)):
            network = folder / (prefix + name)
            network.mkdir(parents=True)
            settings = layout.settings(config, module, formula.SIZE, 1, formula.CLASSES)
            (network / 'config.json').write_text(json.dumps(settings))
            arrays = layout.weights(params, config, one_late)
            (network / 'diffusion_pytorch_model.safetensors').write_bytes(safetensors.encode(arrays, {'format': 'pt'}))
    (folder / 'frequencies.py').write_text('\n'.join(diffusers_dit.FREQUENCIES))
    np.savez(folder / 'inputs.npz', **formula.inputs())


def read(folder, out):
    import diffusers
    import torch

    given, found = np.load(folder / 'inputs.npz'), {}
    for name in ('same', 'late', 'dit_same', 'dit_late'):
        load = diffusers.DiTTransformer2DModel if name.startswith('dit') else diffusers.UNet2DModel
        network = load.from_pretrained(folder / name).eval()
        if name.startswith('dit'):
            exec((folder / 'frequencies.py').read_text(), {'transformer': network})
        x = torch.tensor(given['x']).permute(0, 3, 1, 2)
        with torch.no_grad():
            y = network(x, timestep=torch.tensor(given['steps']), class_labels=torch.tensor(given['labels'])).sample
        found[name] = y.permute(0, 2, 3, 1).numpy()
        found['dit_shapes' if name.startswith('dit') else 'shapes'] = json.dumps(
            {key: list(value.shape) for key, value in network.state_dict().items()}
        )
    chain = diffusers.DDPMScheduler(beta_schedule='linear', beta_start=1e-4, beta_end=0.02, num_train_timesteps=1000)
    origin = f'diffusers {diffusers.__version__}, torch {torch.__version__}'
    np.savez_compressed(out, origin=origin, alphas_cumprod=chain.alphas_cumprod.numpy(), **found)


if __name__ == '__main__':
    mode, *paths = sys.argv[1:]
    {'write': write, 'read': read}[mode](*map(pathlib.Path, paths))
