"""A VQGAN of digits, as a first stage for models of its codes.

genbench train --config=configs/digits/vq_gan.py --workdir=runs/vq_gan
genbench train --config=configs/digits/code_transformer.py --config.family.tokeniser=runs/vq_gan \\
    --workdir=runs/vq_gan_transformer

One run of these 800 steps (seed 0): reconstructions of the 360 test images differ from them by 0.82 of 16 levels on
average (PSNR 21.1 dB), with all 128 codes in use. FD of the family's own samples, whose codes do not know of each
other, is 26.0 ± 2.5 (standard deviation over eight sets), and `elbo` 3.956 ± 0.017 bits per dimension. Training took 20
minutes on a busy machine. The discriminator of this run still saw dequantised images, and now it sees them without
noise. Priors over these codes have not been trained.

Differs from the paper: the images, the network and the discriminator are small, and the run is short. There is no
perceptual distance. Codes are moving averages, as in the VQ-VAE. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'vq_gan', 'discriminator_channels': 32, 'adversarial_start': 200},
            'network': {'channels': 16, 'dropout': 0.1},
            'train': {'num_steps': 800, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8},
        }
    )
