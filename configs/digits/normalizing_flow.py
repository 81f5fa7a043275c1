"""Normalizing flow of affine couplings and 1×1 convolutions on digits.

genbench train --config=configs/digits/normalizing_flow.py --workdir=runs/normalizing_flow

docs/studies/digits_families.md says what results to expect.

Differs from the paper: factored-out channels have no learned priors (Glow does), and the couplings' networks contain no
normalisation (both papers do). Channel mixing starts as a reversal instead of a random rotation. docs/deviations.md
lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'normalizing_flow'},
            'network': {'dropout': 0.3},
            'train': {'num_steps': 600, 'sample_every': 120, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 4e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        }
    )
