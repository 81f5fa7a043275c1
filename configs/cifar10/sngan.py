"""SNGAN on CIFAR-10, with the networks and the optimizer of Miyato et al. 2018 (pfnet-research/sngan_projection).

genbench train --config=configs/cifar10/sngan.py --workdir=runs/cifar10_sngan \
    --config.data.data_dir=DIR

Re-runs of one library, with twice as many updates, have an FID of 16.77, and 13.25 with classes
(--config.family.conditional=True). This config has not been run.

The generator has 4.28 million parameters and the discriminator 1.05 million. The 50,000 updates of the generator are
250,000 steps here. As in the code, samples are normalised by running statistics.

Differs from the paper: the generator's batch is as large as the discriminator's, where the paper's is twice as large.
The discriminator is updated before the generator. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'gan', 'loss': 'hinge', 'penalty': 'none', 'critic_steps': 5},
            'network': {
                'name': 'sngan',
                'channels': 256,
                'multipliers': (1, 1, 1, 1),
                'latent': 128,
                'discriminator_channels': 128,
                'discriminator_multipliers': (1, 1, 1, 1),
                'halvings': 2,
            },
            'train': {'num_steps': 250_000, 'batch_size': 64, 'sample_every': 50_000, 'ema_decay': 0.0},
            'optimizer': {'b2': 0.9, 'schedule': 'linear'},
            'checkpoint': {'every': 10_000},
            'evaluation': {'average': 'current'},
        }
    )
