"""The KL autoencoder of ImageNet at 256×256 with f = 8, whose latents imagenet256/dit and imagenet256/sit model: 32×32
pictures, 4 channels.

genbench train --config=configs/imagenet256/first_stage.py --workdir=runs/imagenet256_first_stage \
    --config.data.data_dir=DIR --config.family.perceptual_vgg=vgg16-397923af.pth \
    --config.family.perceptual_linear=vgg.pth

Prepare the images first: genbench data prepare imagenet2012 --size=256 --crop=adm. vgg16-397923af.pth is torchvision's
VGG16, and vgg.pth is in the folder weights/v0.1 of the package lpips. Without the two files there is no perceptual
distance.

Rombach et al. 2022 report a reconstruction FID of 0.90 for their KL-f8. Encoder and decoder have its 83.65M
parameters. This has not been run here.

Differs from the paper: the published weights were trained on OpenImages. The number of steps is that of the official
repository. The number of devices is not published, so the batch is a choice of ours. The learning rate is the official
4.5e-6 times the batch. An average of the weights is kept, and the computation is in bfloat16. docs/deviations.md lists
the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (256,), 'crop': 'adm'},
            'family': {'name': 'kl_autoencoder', 'adversarial_start': 50_001, 'learn_scale': False},
            'network': {
                'channels': 128,
                'multipliers': (1, 2, 4, 4),
                'blocks': 2,
                'decoder_blocks': 3,
                'middle': True,
                'groups': 32,
                'dtype': 'bfloat16',
            },
            'train': {'num_steps': 246_803, 'batch_size': 48, 'sample_every': 10_000, 'ema_decay': 0.9999},
            'optimizer': {'learning_rate': 2.16e-4},
            'checkpoint': {'every': 5000},
            'evaluation': {
                'metrics': ('reconstruction_fd', 'reconstruction_psnr', 'reconstruction_ssim'),
                'features': {'name': 'inception'},
                'split': 'validation',
            },
        }
    )
