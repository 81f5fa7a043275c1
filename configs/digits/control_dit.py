"""Edges steer a diffusion transformer of the digits, which stays frozen.

genbench train --config=configs/digits/control_dit.py --workdir=runs/control_dit

Train the base first: configs/digits/dit.py.

Differs from the paper: J. Chen et al., PixArt-δ, 2024 (ControlNet-Transformer), control PixArt-α in latents, where the
edges are latents too, and copy 13 of its 28 blocks. Here the base is a small DiT in pixels without captions, the edges
have patches of their own, and two of four blocks are copied. The copies have their own embedding of time. The first one
sees the tokens before the base's first block; in the official code it sees those after it.

Status: run for a few steps only; the agreement of edges has not been measured.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'base': 'runs/dit', 'conditions': ('edges',), 'control_blocks': 2},
            'network': {'name': 'dit'},
            'train': {'num_steps': 300, 'sample_every': 150, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('ddim:20', 'ddim:20:1')},
        }
    )
