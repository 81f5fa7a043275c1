"""R3GAN on CIFAR-10 with classes, with the settings of Huang et al. 2024 (preset CIFAR10 of brownvc/R3GAN).

genbench train --config=configs/cifar10/r3gan.py --workdir=runs/cifar10_r3gan \
    --config.data.data_dir=DIR

The paper's FID is 1.96. This config has not been run.

Differs from the paper: the learning rate, Adam's second decay and the average's decay are constant, where the paper
changes them along half a cosine over 20 million images. The run here has that length. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'gan',
                'conditional': True,
                'loss': 'relativistic',
                'penalty': 'r1_r2',
                'penalty_weight': 0.05,
                'penalty_falls_to': 0.1,
                'augmentation': 'bgc_cutout',
                'augmentation_probability': 0.55,
            },
            'network': {'name': 'r3gan', 'channels': 768, 'multipliers': (1, 1, 1, 1)},
            'train': {'num_steps': 39_062, 'batch_size': 512, 'sample_every': 5_000, 'ema_decay': 0.9999},
            'checkpoint': {'every': 2_000},
        }
    )
