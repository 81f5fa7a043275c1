"""Normalizing flow of affine couplings and 1×1 convolutions on digits.

genbench train --config=configs/digits/normalizing_flow.py --workdir=runs/normalizing_flow

docs/studies/digits_families.md has what to expect.

Differs from the paper: no learned priors (Glow) where channels are factored out, no normalisation inside the
couplings' networks (both papers), channel mixing that starts as a reversal instead of a random rotation.
docs/deviations.md has the rest.
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
