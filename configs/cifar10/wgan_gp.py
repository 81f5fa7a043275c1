"""WGAN-GP on CIFAR-10, with the loss, the penalty and the optimizer of Gulrajani et al. 2017.

genbench train --config=configs/cifar10/wgan_gp.py --workdir=runs/cifar10_wgan_gp \
    --config.data.data_dir=DIR

The paper has no FID. This config has not been run.

The networks are the paper's residual ones, with 128 channels everywhere and batch normalisation in the generator.

Differs from the paper: the critic is linear in the sum over pixels, where the paper's is linear in the mean. Samples
are normalised by running statistics. The generator's batch is as large as the critic's, where the paper's is twice as
large.
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
            'network': {
                'name': 'sngan',
                'channels': 128,
                'multipliers': (1, 1, 1, 1),
                'latent': 128,
                'discriminator_channels': 128,
                'discriminator_multipliers': (1, 1, 1, 1),
                'halvings': 2,
                'spectral': False,
            },
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000, 'ema_decay': 0.0},
            'optimizer': {'b2': 0.9, 'schedule': 'linear'},
            'checkpoint': {'every': 10_000},
            'evaluation': {'average': 'current'},
        }
    )
