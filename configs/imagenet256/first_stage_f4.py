"""The KL autoencoder of ImageNet at 256×256 with f = 4: latents are 64×64 pictures with 3 channels.

genbench train --config=configs/imagenet256/first_stage_f4.py --workdir=runs/imagenet256_first_stage_f4 \
    --config.data.data_dir=DIR --config.family.perceptual_vgg=vgg16-397923af.pth \
    --config.family.perceptual_linear=vgg.pth

Prepare images and weights as for imagenet256/first_stage.

Rombach et al. 2022 report a reconstruction FID of 0.27 for their KL-f4. Encoder and decoder have its 55.31M
parameters. This has not been run here.

Differs from the paper: as imagenet256/first_stage does, and its batch has 16 images, with a learning rate in
proportion.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet256/first_stage')
    values['family'] |= {'latent_channels': 3}
    values['network'] |= {'multipliers': (1, 2, 4)}
    values['train'] |= {'num_steps': 176_991, 'batch_size': 16}
    values['optimizer'] |= {'learning_rate': 7.2e-5}
    return values
