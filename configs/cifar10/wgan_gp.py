"""WGAN-GP on CIFAR-10, with the loss, the penalty and the optimizer of Gulrajani et al. 2017.

genbench train --config=configs/cifar10/wgan_gp.py --workdir=runs/cifar10_wgan_gp \
    --config.data.data_dir=DIR

The paper has no FID. This config has not been run.

Differs from the paper: the network is that of Mescheder et al. 2018 without normalisation, where the paper's has ReLUs
and batch normalisation in the generator. The generator's batch is as large as the critic's, where the paper's is twice
as large.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'gan',
                'loss': 'wasserstein',
                'penalty': 'gradient_penalty',
                'penalty_weight': 10.0,
                'critic_steps': 5,
            },
            'network': {'channels': 128, 'multipliers': (1, 1, 1, 1), 'latent': 128},
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000, 'ema_decay': 0.0},
            'optimizer': {'b2': 0.9, 'schedule': 'linear'},
            'checkpoint': {'every': 10_000},
            'evaluation': {'average': 'current'},
        }
    )
