"""StyleGAN3-T on FFHQ at 1024 pixels, with the settings of Karras et al. 2021 (NVlabs/stylegan3).

genbench data prepare folder:ffhq1024 --size=1024
genbench train --config=configs/ffhq1024/style_gan3.py --workdir=runs/ffhq1024_style_gan3

The paper's FID is 2.79. StyleGAN3-R (--config.network.variant=r --config.family.blur=10) has 3.07. This config has not
been run. The generators have 22.3 and 15.1 million parameters, and the discriminator 29.0.

Differs from the paper: the average's decay has a warm-up of its own; running means follow all batches of the generator,
where the code has them follow those that train the discriminator. See docs/deviations.md.
"""

from ml_collections import ConfigDict

BATCH = 32


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'folder:ffhq1024', 'size': (1024,), 'flip': True},
            'family': {
                'name': 'style_gan',
                'penalty_weight': 32.8,
                'mixing': 0.0,
                'path_length_weight': 0.0,
                'discriminator_learning_rate': 2e-3,
            },
            'network': {
                'name': 'stylegan3',
                'multipliers': (1, 2, 4, 8, 16, 16, 16, 16, 16),
                'latent': 512,
                'features': 512,
                'magnitude_decay': 0.5 ** (BATCH / 20_000),
            },
            'train': {
                'num_steps': 25_000_000 // BATCH,
                'batch_size': BATCH,
                'sample_every': 50_000,
                'ema_decay': 0.5 ** (BATCH / 10_000),
            },
            'checkpoint': {'every': 10_000},
        }
    )
