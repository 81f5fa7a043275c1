"""TarFlow on digits, for densities: four flows of two layers over patches of 2×2 pixels.

genbench train --config=configs/digits/tarflow.py --workdir=runs/tarflow

It has not been run at this length.

Differs from the paper: the network is small, the run is short, and the optimizer is Adam. docs/deviations.md
lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'normalizing_flow'},
            'network': {'name': 'tarflow'},
            'train': {'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
        }
    )
