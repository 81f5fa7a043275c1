"""Records what EDM's and score SDE's official code compute, as tests/exchange/fixtures/song.npz.

It needs torch, ml_collections and checkouts of NVlabs/edm (008a4e5) and yang-song/score_sde_pytorch (cb1f359), and no
genbench. Parameters and buffers are those of waves.py, in the order of the state dicts.

    python tests/exchange/record_song.py EDM SCORE_SDE tests/exchange/fixtures/song.npz
"""

import importlib
import json
import pathlib
import sys
import types

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import waves

DDPMPP = {'model_channels': 8, 'num_blocks': 1, 'attn_resolutions': [4], 'channel_mult': [1, 2]}
NCSNPP = {**DDPMPP, 'embedding_type': 'fourier', 'channel_mult_noise': 2, 'encoder_type': 'residual',
          'resample_filter': [1, 3, 3, 1]}  # fmt: skip
ADM = {'model_channels': 64, 'num_blocks': 1, 'attn_resolutions': [4], 'channel_mult': [1, 2]}  # 64 channels a head
CASES = {
    'edm_ncsnpp': ('EDMPrecond', 'SongUNet', NCSNPP, True),
    'edm_ddpmpp': ('EDMPrecond', 'SongUNet', DDPMPP, True),
    'edm_adm': ('EDMPrecond', 'DhariwalUNet', ADM, True),
    'vp_ddpmpp': ('VPPrecond', 'SongUNet', DDPMPP, False),
    've_ncsnpp': ('VEPrecond', 'SongUNet', NCSNPP, False),
}


def channels_first(x):
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def channels_last(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def fill(network):
    """The shapes of the state dict, whose arrays are now those of waves.py; filters stay, for they are settings."""
    state = network.state_dict()
    shapes = {name: list(value.shape) for name, value in state.items() if not name.endswith('resample_filter')}
    network.load_state_dict({**state, **{name: torch.tensor(one) for name, one in waves.filled(shapes).items()}})
    return json.dumps(shapes)


def edm(found):
    networks = importlib.import_module('training.networks')
    for name, (precond, kind, options, conditional) in CASES.items():
        told = {'label_dim': waves.CLASSES, 'augment_dim': 9} if conditional else {}
        network = getattr(networks, precond)(waves.SIZE, waves.CHANNELS, model_type=kind, **told, **options).eval()
        found[f'{name}_shapes'] = fill(network)
        given = {}
        if conditional:
            classes = torch.eye(waves.CLASSES + 1)[waves.labels()][:, :-1]
            given = {'class_labels': classes, 'augment_labels': torch.tensor(waves.changes())}
        x = channels_first(waves.images() * np.maximum(waves.LEVELS, 1)[:, None, None, None])
        found[name] = channels_last(network(x, torch.tensor(waves.LEVELS), **given))
        if name == 'edm_ddpmpp':
            sampler = importlib.import_module('generate').edm_sampler
            start = channels_first(waves.noise(0))
            for word, churn in (('plain', {}), ('churned', waves.CHURN)):
                told = {f'S_{one.removeprefix("t")}': value for one, value in churn.items()}
                numbers = iter(range(1, waves.STEPS + 1))
                draw = lambda like, numbers=numbers: channels_first(waves.noise(next(numbers))).double()  # noqa: E731
                with torch.no_grad():
                    x = sampler(network, start, classes, randn_like=draw, num_steps=waves.STEPS, **told)
                found[f'sampled_{word}'] = channels_last(x)


def score_sde(found):
    sys.modules['op'] = types.ModuleType('op')  # its kernels are compiled for a GPU
    sys.modules['op'].upfirdn2d = native_filter
    ncsnpp = importlib.import_module('models.ncsnpp')
    for name, module, wave in (('sde_ve', 've.cifar10_ncsnpp_continuous', waves.SIGMAS),
                               ('sde_vp', 'vp.cifar10_ddpmpp_continuous', waves.TIMES * 999)):  # fmt: skip
        config = importlib.import_module(f'configs.{module}').get_config()
        config.data.image_size, config.model.nf, config.model.ch_mult = waves.SIZE, 8, (1, 2)
        config.model.num_res_blocks, config.model.attn_resolutions = 1, (4,)
        network = ncsnpp.NCSNpp(config).eval()
        found[f'{name}_shapes'] = fill(network)
        found[f'{name}_trained'] = json.dumps([one for one, value in network.named_parameters() if value.requires_grad])
        network.sigmas = torch.ones(config.model.num_scales, dtype=torch.float64)
        found[name] = channels_last(network(channels_first(waves.images()), torch.tensor(wave)))


def native_filter(x, kernel, up=1, down=1, pad=(0, 0)):
    """Zeros between pixels, zeros around them, a filter, and every `down`th pixel."""
    batch, channels, height, width = x.shape
    wide = torch.zeros(batch, channels, height * up, width * up)
    wide[:, :, ::up, ::up] = x
    wide = torch.nn.functional.pad(wide, [*pad, *pad]).reshape(batch * channels, 1, height * up + sum(pad), -1)
    y = torch.nn.functional.conv2d(wide, torch.flip(kernel, [0, 1])[None, None])[:, :, ::down, ::down]
    return y.reshape(batch, channels, *y.shape[2:])


if __name__ == '__main__':
    *checkouts, out = sys.argv[1:]
    arrays = {'origin': f'NVlabs/edm 008a4e5, yang-song/score_sde_pytorch cb1f359, torch {torch.__version__}'}
    for record, checkout in zip((edm, score_sde), checkouts, strict=True):
        sys.path.insert(0, checkout)
        record(arrays)
    np.savez_compressed(out, **arrays)
