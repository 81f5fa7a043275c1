"""MADE on digits: an exact probability of the integer pixels, drawn one after another.

genbench train --config=configs/digits/autoregressive.py --workdir=runs/autoregressive

Differs from the paper: pixels have 17 levels instead of two, and the optimizer is Adam with a cosine schedule instead
of Adagrad. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'autoregressive'},
            'network': {'masks': 4},
            'train': {'num_steps': 600, 'sample_every': 120, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine'},
        }
    )
