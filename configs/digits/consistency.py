"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency

Train the teacher first: configs/digits/diffusion.py. Expect FD 3.8 (500 samples) with one evaluation and 2.8 with two.

Differs from the paper: the distance is pseudo-Huber, not LPIPS; the target network has decay 0.95, not 0; Adam at 1e-3
with clipping at 1, not RAdam at 4e-4 without, for there are only 250 steps; small networks and another data set.
docs/deviations.md has the rest.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'consistency', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 250, 'sample_every': 50, 'ema_decay': 0.99},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4'),
            },
        }
    )
