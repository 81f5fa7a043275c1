"""Records what EDM2's official code computes, as tests/networks/fixtures/edm2.npz.

It needs torch and a checkout of NVlabs/edm2 (4bf8162), and no genbench. Parameters and buffers are normal numbers from
one generator, in the order of the state dict.

    python tests/networks/record_edm2.py EDM2 tests/networks/fixtures/edm2.npz
"""

import json
import sys

import numpy as np
import torch

SIZE, CHANNELS, CLASSES, HEAD = 8, 3, 3, 8
OPTIONS = {'model_channels': 16, 'channel_mult': [1, 2], 'num_blocks': 1, 'attn_resolutions': [4]}
KERNEL = 'enc.4x4_block0.conv_res0.weight'


def main(checkout, out):
    sys.path.insert(0, checkout)
    from training.networks_edm2 import UNet

    numbers = np.random.RandomState(0)
    network = UNet(SIZE, CHANNELS, CLASSES, channels_per_head=HEAD, **OPTIONS)
    state = network.state_dict()
    shapes = {name: list(value.shape) for name, value in state.items()}
    drawn = {name: torch.tensor(numbers.normal(size=shape), dtype=torch.float32) for name, shape in shapes.items()}
    network.load_state_dict(drawn)
    x = numbers.normal(size=(4, SIZE, SIZE, CHANNELS)).astype(np.float32)
    levels = np.array([0.02, 0.3, 2.0, 40.0], np.float32)
    classes = torch.eye(CLASSES + 1)[torch.tensor([0, 1, 2, CLASSES])][:, :-1]
    images = torch.tensor(x).permute(0, 3, 1, 2)
    y = network.eval()(images, torch.tensor(levels).log() / 4, classes)
    torch.cos(y).sum().backward()
    weight = network.get_parameter(KERNEL)
    slope, gains = weight.grad.numpy(), network.get_parameter('enc.4x4_block0.emb_gain').grad.numpy()
    network.train()(images, torch.tensor(levels).log() / 4, classes)
    np.savez_compressed(
        out, origin=f'NVlabs/edm2 4bf8162, torch {torch.__version__}', shapes=json.dumps(shapes), x=x, levels=levels,
        y=y.detach().permute(0, 2, 3, 1).numpy(), slope=slope[:4], gain=gains, forced=weight.detach().numpy()[:4],
    )  # fmt: skip


if __name__ == '__main__':
    main(*sys.argv[1:])
