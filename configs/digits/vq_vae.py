"""A VQ-VAE of digits, which serves as a first stage for models of its latents.

genbench train --config=configs/digits/vq_vae.py --workdir=runs/vq_vae
genbench train --config=configs/digits/latent_diffusion.py --config.family.first_stage=runs/vq_vae \\
    --workdir=runs/vq_diffusion

Each of 4×4 positions has a code. The prior is the frequency of each code at each position, independent of its
neighbours, so this family's own samples do not look like digits. `--config.family.quantiser=fsq` uses a fixed grid
instead of learned codes.

With one seed, `elbo` is 2.82 bits per dimension, and `fd` of the family's own samples is 18.0 ± 2.0 (standard deviation
over eight sets). Diffusion in these latents has `fd` 6.79 ± 1.5 and `fd_train` 3.22 ± 0.54 with `ddim:20`. It has no
likelihood: the encoder maps an image to a single point, so q(z | image) has no density.

Differs from the paper: van den Oord et al. 2017 use larger images, 512 codes, and a PixelCNN as the prior. Here codes
that hardly any vector selects are replaced by vectors from the batch, as in Jukebox. The first codes are vectors from
the first batch.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'vq_vae'},
            'network': {'channels': 16, 'dropout': 0.1},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8},
        }
    )
