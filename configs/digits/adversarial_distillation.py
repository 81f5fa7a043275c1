"""Adversarial diffusion distillation (ADD) of the digits diffusion run.

genbench train --config=configs/digits/adversarial_distillation.py --workdir=runs/adversarial_distillation

Train the teacher first: configs/digits/diffusion.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'adversarial_distillation', 'teacher': 'runs/diffusion', 'penalty_weight': 0.5},
            'network': {'channels': 16},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-4, 'b1': 0.0, 'b2': 0.99, 'clip_norm': 0.0},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4'),
            },
        }
    )
