"""TarFlow on digits with noise augmentation, classes, guidance and denoised samples.

genbench train --config=configs/digits/noised_flow.py --workdir=runs/noised_flow

A run of 500 steps at a learning rate of 2e-3 (seed 0) draws legible digits. It has not been scored.

Differs from the paper: the network is small, the run is short, the optimizer is Adam, and σ is 0.1 for 17 levels
instead of 0.05 for 256. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'noised_flow', 'conditional': True, 'noise_std': 0.1},
            'network': {'name': 'tarflow'},
            'train': {'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
        }
    )
