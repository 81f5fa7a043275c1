"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency

Train the teacher first: configs/digits/diffusion.py. Expect FD 3.8 (500 samples) with one evaluation and 2.8 with two.
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
