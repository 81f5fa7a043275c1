"""Flow matching on digits.

genbench train --config=configs/digits/flow_matching.py --workdir=runs/flow_matching

docs/studies/digits_families.md says what results to expect.

Differs from the paper: the data set is different, and the U-Net is small, without attention. σ_min = 0. Pixels have
uniform noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'flow_matching'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'refine_images': 16,
                'samplers': ('euler:1', 'euler:2', 'euler:5', 'euler:10', 'euler:20', 'heun:10'),
            },
        }
    )
