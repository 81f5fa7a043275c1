"""A VAE of digits, whose latents configs/digits/latent_diffusion.py models.

genbench train --config=configs/digits/first_stage.py --workdir=runs/first_stage

Latents are 4×4 pictures with two channels. The KL term has so small a weight that they preserve the images' appearance.
Samples from the VAE's own prior are therefore poor.

Differs from the paper: Rombach et al. 2022 train first stages on larger images with a perceptual and an adversarial
loss. Here the decoder is categorical and trained by likelihood alone. The KL term has the weight 0.1 relative to a
likelihood in nats, not 1e-6 relative to a mean over pixels.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'vae', 'latent_channels': 2, 'beta': 0.1},
            'network': {'channels': 16, 'dropout': 0.1},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8},
        }
    )
