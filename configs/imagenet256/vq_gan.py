"""VQGAN of ImageNet at 256×256 with f = 16: 16×16 codes of 16,384.

genbench train --config=configs/imagenet256/vq_gan.py --workdir=runs/imagenet256_vq_gan \
    --config.data.data_dir=DIR --config.family.perceptual_vgg=vgg16-397923af.pth \
    --config.family.perceptual_linear=vgg.pth

Prepare images and weights as for imagenet256/first_stage. Without the weights there is no perceptual distance.

The repository of Esser et al. 2021 reports a reconstruction FID of 4.98 on the validation images. Encoder, decoder and
codebook have the official 75.94M parameters. For the model with 1,024 codes (7.94), set family.codes=1024,
family.adversarial_weight=0.8, family.adversarial_start=250001 and family.discriminator_layers=3. This has not been run
here.

Differs from the paper: codes are moving averages and are restarted, where the paper trains them by gradients. Training
images are cropped at the centre and not at random. The number of devices and of steps is not published, so steps and
batch are choices of ours; the official config has 12 images a device. The learning rate is the official 4.5e-6 times
the batch. The computation is in bfloat16. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (256,), 'crop': 'adm'},
            'family': {
                'name': 'vq_gan',
                'codes': 16_384,
                'latent_channels': 256,
                'observation_scale': 1.0,
                'commitment': 768.0,  # 256·256·3 values / 256 channels: the code's weight 1 of the mean square
                'adversarial_weight': 0.75,
                'discriminator_layers': 2,
            },
            'network': {
                'channels': 128,
                'multipliers': (1, 1, 2, 2, 4),
                'blocks': 2,
                'decoder_blocks': 3,
                'attention': (16,),
                'middle': True,
                'groups': 32,
                'dtype': 'bfloat16',
            },
            'train': {'num_steps': 500_000, 'batch_size': 96, 'sample_every': 10_000, 'ema_decay': 0.0},
            'optimizer': {'learning_rate': 4.32e-4},
            'checkpoint': {'every': 5000},
            'evaluation': {
                'metrics': ('reconstruction_fd', 'reconstruction_psnr', 'reconstruction_ssim', 'codes_used'),
                'features': {'name': 'inception'},
                'split': 'validation',
            },
        }
    )
