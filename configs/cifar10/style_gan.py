"""StyleGAN2-ADA on CIFAR-10, with the settings of Karras et al. 2020 (preset cifar of NVlabs/stylegan2-ada-pytorch).

genbench train --config=configs/cifar10/style_gan.py --workdir=runs/cifar10_style_gan \
    --config.data.data_dir=DIR

The paper's FID is 2.92, and 2.42 with classes (--config.family.conditional=True). This config has not been run.

Differs from the paper: the average's decay is constant, with the half-life of 500,000 images that the paper's ends
with; changes are interpolated bilinearly. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {
                'name': 'style_gan',
                'penalty_weight': 0.01,
                'mixing': 0.0,
                'path_length_weight': 0.0,
                'augmentation': 'bgc',
            },
            'network': {
                'channels': 512,
                'multipliers': (1, 1, 1, 1),
                'latent': 512,
                'features': 512,
                'compared': 32,
                'residual': False,
            },
            'train': {'num_steps': 1_562_500, 'batch_size': 64, 'sample_every': 50_000, 'ema_decay': 0.99991},
            'checkpoint': {'every': 10_000},
        }
    )
