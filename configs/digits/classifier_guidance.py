"""Diffusion on digits with labels and a classifier of noisy images, for classifier guidance.

genbench train --config=configs/digits/classifier_guidance.py --workdir=runs/classifier_guidance
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditional': True, 'classifier': True},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('ddim:20', 'ddim:20:guidance=1', 'ddim:20:guidance=1,by=classifier'),
            },
        }
    )
