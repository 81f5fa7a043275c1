"""StyleGAN2 on digits, small.

genbench train --config=configs/digits/style_gan.py --workdir=runs/style_gan

The paper has no digits.

Differs from the paper: the network, its rate and its penalty are ours, and nothing is augmented. See
docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'style_gan', 'penalty_every': 4},
            'network': {'channels': 16},
            'train': {'num_steps': 1200, 'sample_every': 300, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'linear'},
        }
    )
