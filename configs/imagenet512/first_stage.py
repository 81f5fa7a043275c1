"""The KL autoencoder of ImageNet at 512×512, whose latents imagenet512/edm2 models: 64×64 pictures, 4 channels.

genbench train --config=configs/imagenet512/first_stage.py --workdir=runs/imagenet512_first_stage \
    --config.data.data_dir=DIR --config.family.perceptual_vgg=vgg16-397923af.pth \
    --config.family.perceptual_linear=vgg.pth

Prepare the images first: genbench data prepare imagenet2012 --size=512 --crop=adm. This has not been run here.

Differs from the paper: as imagenet256/first_stage does, and its batch has 12 images, with a learning rate
in proportion.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet256/first_stage')
    values['data'] |= {'size': (512,)}
    values['train'] |= {'batch_size': 12}
    values['optimizer'] |= {'learning_rate': 5.4e-5}
    return values
