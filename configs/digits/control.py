"""Edges steer the digits diffusion run, which stays frozen.

genbench train --config=configs/digits/control.py --workdir=runs/control

Train the base first: configs/digits/diffusion.py.

256 samples are given the edges of test images. Their own edges differ from those by 0.077 (root mean square, ddim:20),
and by 0.333 from the edges of another image. With guidance 1 the differences are 0.059 and 0.345.

Differs from the paper: L. Zhang et al., Adding Conditional Control to Text-to-Image Diffusion Models, 2023, control
Stable Diffusion in latents and drop half of the captions. Here the base is a small U-Net in pixels without conditions.
The pictures have the size of the images and pass through two convolutions, not eight. A tenth of them is dropped.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'base': 'runs/diffusion', 'conditions': ('edges',)},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 300, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('ddim:20', 'ddim:20:1')},
        }
    )
