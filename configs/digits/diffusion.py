"""DDPM with the cosine schedule and v prediction on digits.

genbench train --config=configs/digits/diffusion.py --workdir=runs/diffusion

docs/studies/digits_families.md says what results to expect.

Differs from the paper: the data set is different, and the U-Net is small, without attention and dropout. The cosine
schedule and v prediction are from later papers. Pixels have uniform noise in their bins. The learning rate, averaging
and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'refine_images': 16,
                'samplers': ('ddim:1', 'ddim:2', 'ddim:5', 'ddim:10', 'ddim:20', 'ancestral:20'),
            },
        }
    )
