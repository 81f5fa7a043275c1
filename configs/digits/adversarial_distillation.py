"""Adversarial diffusion distillation (ADD) of the digits diffusion run."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'adversarial_distillation', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 600, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-4},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': tuple(f'multistep_consistency:{steps}' for steps in (1, 2, 4)),
            },
        }
    )
