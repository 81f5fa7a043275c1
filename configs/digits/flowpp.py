"""Flow++ on digits, with variational dequantisation.

genbench train --config=configs/digits/flowpp.py --workdir=runs/flowpp

It has not been run at this length.

Differs from the paper: the network is small and the run is short. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'normalizing_flow', 'dequantisation': 'variational', 'dequantiser_channels': 16},
            'network': {'name': 'flowpp', 'channels': 24, 'blocks': 1, 'dropout': 0.2},
            'train': {'num_steps': 800, 'batch_size': 64, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        }
    )
