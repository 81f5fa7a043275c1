"""Diffusion in the latents of a VAE of digits.

genbench train --config=configs/digits/latent_diffusion.py --workdir=runs/latent_diffusion

Train the first stage first: configs/digits/first_stage.py.

With one seed for both stages and `ddim:20`, `fd` is 7.30 ± 1.00 (standard deviation over eight sets of samples) and
`fd_train` is 3.59 ± 0.59. Training took 5.9e11 FLOPs, and the first stage took 6.7e11. Diffusion in pixels
(diffusion.py) has 7.86 ± 0.43 over three seeds, so one seed cannot tell the two apart. `first_stage_vlb_continuous` is
2.31 bits per dimension, a bound on the image's probability through both stages.

Differs from the paper: Rombach et al. 2022 use other data and larger networks with attention, and predict the noise on
a linear schedule. Here the schedule is cosine and the network predicts v. Each channel of the latents is scaled by its
mean and standard deviation over the first batch.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'first_stage': 'runs/first_stage'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'refine_images': 16,
                'samplers': ('ddim:1', 'ddim:2', 'ddim:5', 'ddim:10', 'ddim:20', 'ancestral:20'),
            },
        }
    )
