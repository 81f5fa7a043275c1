"""A VAE of ImageNet at 256×256, whose latents imagenet256/dit and imagenet256/sit model: 32×32 pictures, 4 channels.

genbench train --config=configs/imagenet256/first_stage.py --workdir=runs/imagenet256_first_stage \
    --config.data.data_dir=DIR

Prepare the images first: genbench data prepare imagenet2012 --size=256 --crop=adm.

Rombach et al. 2022 report a reconstruction FID of 0.90 for their KL-f8, whose shape this has. This has not been run
here.

Differs from the paper: there is no perceptual and no adversarial loss, so reconstructions are smoother. The networks
have no attention. The likelihood is Laplace's. The decoder learns its scale for each value; the paper learns one
scale for all. The weight of the KL term is a choice of ours. The published weights were trained on OpenImages.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (256,), 'crop': 'adm'},
            'family': {'name': 'vae', 'latent_channels': 4, 'decoder': 'laplace', 'beta': 0.01},
            'network': {
                'channels': 128,
                'multipliers': (1, 2, 4, 4),
                'blocks': 2,
                'groups': 32,
                'dtype': 'bfloat16',
            },
            'train': {'num_steps': 250_000, 'batch_size': 48, 'sample_every': 10_000, 'ema_decay': 0.9999},
            'optimizer': {'learning_rate': 5e-5},
            'checkpoint': {'every': 5000},
            'evaluation': {'metrics': ('fid',), 'split': 'validation'},
        }
    )
