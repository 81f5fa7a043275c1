"""A diffusion model that is trained to complete digits from their upper half.

genbench train --config=configs/digits/palette.py --workdir=runs/palette

C. Saharia et al., Palette: Image-to-Image Diffusion Models, 2022: the network sees x_t and, as further channels, what
is known of the image. --config.family.conditions=degraded:right trains for another problem, and so on.

Differs from the paper: hidden pixels are zero, and a further channel says which are known, where the paper fills them
with noise; the loss is over all pixels, and not over the hidden ones; the U-Net is small and has no attention; a cosine
schedule and v instead of noise levels that the network sees and ε; Adam with a cosine schedule at 2e-3.

Status: run for a few steps only.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditions': ('degraded:half',), 'condition_dropout': 0.0},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 250, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('ddim:20',)},
        }
    )
