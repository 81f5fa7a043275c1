"""A diffusion model that is trained to enlarge digits by two.

genbench train --config=configs/digits/super_resolution.py --workdir=runs/super_resolution

C. Saharia et al., Image Super-Resolution via Iterative Refinement, 2021 (SR3): the network sees x_t and, as further
channels, the small image at the size of the large one.

Differs from the paper: the small image is the mean over squares of 2×2 pixels, each repeated, and not enlarged by a
bicubic filter; the U-Net is small and has no attention; a cosine schedule and v instead of noise levels that the
network sees and ε; Adam with a cosine schedule at 2e-3.

Status: run for a few steps only.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditions': ('degraded:pool2',), 'condition_dropout': 0.0},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 250, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('ddim:20',)},
        }
    )
