"""The KL autoencoder of ImageNet at 256×256 with f = 16: latents are 16×16 pictures with 16 channels.

genbench train --config=configs/imagenet256/first_stage_f16.py --workdir=runs/imagenet256_first_stage_f16 \
    --config.data.data_dir=DIR --config.family.perceptual_vgg=vgg16-397923af.pth \
    --config.family.perceptual_linear=vgg.pth

Prepare images and weights as for imagenet256/first_stage.

Rombach et al. 2022 report a reconstruction FID of 0.87 for their KL-f16. Encoder and decoder have its 69.61M
parameters. This has not been run here.

Differs from the paper: as imagenet256/first_stage does.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet256/first_stage')
    values['family'] |= {'latent_channels': 16}
    values['network'] |= {'multipliers': (1, 1, 2, 2, 4), 'attention': (16,)}
    values['train'] |= {'num_steps': 442_998}
    return values
