"""Consistency trajectory model (CTM) of the digits diffusion run.

genbench train --config=configs/digits/consistency_trajectory.py --workdir=runs/consistency_trajectory

Train the teacher first: configs/digits/diffusion.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'consistency_trajectory',
                'teacher': 'runs/diffusion',
                'solver_steps': 4,
                'target_decay': 0.95,
            },
            'train': {'num_steps': 250, 'sample_every': 50, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine'},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('flow_map:1', 'flow_map:2', 'flow_map:4')},
        }
    )
