"""A VQGAN of digits, as a first stage for models of its codes.

genbench train --config=configs/digits/vq_gan.py --workdir=runs/vq_gan
genbench train --config=configs/digits/code_transformer.py --config.family.tokeniser=runs/vq_gan \\
    --workdir=runs/vq_gan_transformer

It has not been run at this length.

Differs from the paper: the images, the network and the discriminator are small, and the run is short. There is no
perceptual distance. Codes are moving averages, as in the VQ-VAE. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'vq_gan', 'discriminator_channels': 32, 'discriminator_layers': 1, 'adversarial_start': 200,
            },
            'network': {'channels': 16, 'dropout': 0.1},
            'train': {'num_steps': 800, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8},
        }
    )  # fmt: skip
