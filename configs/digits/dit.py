"""A small diffusion transformer of the digits.

genbench train --config=configs/digits/dit.py --workdir=runs/dit

W. Peebles, S. Xie, Scalable Diffusion Models with Transformers, 2023: blocks with adaLN-Zero on patches of 2.

Differs from the paper: pixels of 8×8 images instead of latents; four blocks of width 128; no labels; the cosine
schedule and v prediction instead of the linear one and ε; the variance is not learned; Adam at 1e-3 with a cosine
schedule instead of AdamW at 1e-4.

Status: run for a few steps only.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion'},
            'network': {'name': 'dit'},
            'train': {'num_steps': 500, 'sample_every': 250, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'refine_images': 16, 'samplers': ('ddim:20',)},
        }
    )
