"""Distribution matching distillation of the digits diffusion run.

genbench train --config=configs/digits/distribution_matching.py --workdir=runs/distribution_matching

Train the teacher first: configs/digits/diffusion.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'distribution_matching', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 1000, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-4},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('multistep_consistency:1',)},
        }
    )
