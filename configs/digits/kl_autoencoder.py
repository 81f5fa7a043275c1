"""The autoencoder of latent diffusion on digits, as a first stage for models on a path.

genbench train --config=configs/digits/kl_autoencoder.py --workdir=runs/kl_autoencoder
genbench train --config=configs/digits/latent_diffusion.py --config.family.first_stage=runs/kl_autoencoder \\
    --workdir=runs/kl_diffusion
genbench evaluate runs/kl_autoencoder \\
    --config.evaluation.metrics=reconstruction_fd,reconstruction_psnr,reconstruction_ssim

One run each (seed 0). Reconstructions of the 360 test images have an FD of 0.19, a PSNR of 26.3 ± 0.1 dB and an SSIM of
0.989. Diffusion in these latents has an FD of 7.4 ± 1.2 with `ddim:20` (standard deviation over eight sets); in those
of digits/first_stage it has 7.3 ± 1.0. The family's own samples have 39.1 ± 1.4, since its latents are not normal, and
`elbo` is 6.663 ± 0.013 bits per dimension.

Differs from the paper: the images, the networks and the discriminator are small, and the run is short. There is no
perceptual distance, since LPIPS needs images of 16 pixels a side. The scale of the likelihood starts at 0.1 instead of
1, because a short run hardly moves it. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'kl_autoencoder',
                'latent_channels': 2,
                'observation_scale': 0.1,
                'discriminator_channels': 32,
                'adversarial_start': 200,
            },
            'network': {'channels': 16, 'middle': True, 'decoder_blocks': 2, 'dropout': 0.1},
            'train': {'num_steps': 800, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8},
        }
    )
