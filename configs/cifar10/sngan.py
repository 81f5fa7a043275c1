"""The hinge loss with spectral normalisation on CIFAR-10, with the optimizer of Miyato et al. 2018.

genbench train --config=configs/cifar10/sngan.py --workdir=runs/cifar10_sngan \
    --config.data.data_dir=DIR

This config has not been run.

Differs from the paper: the network is that of Mescheder et al. 2018, where the paper's has ReLUs, average pooling, a
sum over pixels before the last layer, and batch normalisation in the generator.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'gan', 'loss': 'hinge', 'penalty': 'none', 'critic_steps': 5},
            'network': {'channels': 128, 'multipliers': (1, 1, 1, 1), 'latent': 128, 'spectral': True},
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000, 'ema_decay': 0.0},
            'optimizer': {'b2': 0.9, 'schedule': 'linear'},
            'checkpoint': {'every': 10_000},
            'evaluation': {'average': 'current'},
        }
    )
