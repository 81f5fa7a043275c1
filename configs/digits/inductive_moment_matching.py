"""Inductive moment matching on digits.

genbench train --config=configs/digits/inductive_moment_matching.py --workdir=runs/inductive_moment_matching

docs/studies/few_step.md says what results to expect.

Differs from the paper: the data set is different, and the U-Net is small, without attention. r is 0.05 in time before
t, instead of 1/2¹² of the noise levels, so that jumps spread over the path within a short run. There is no guidance.
Pixels have uniform noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'inductive_moment_matching'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('flow_map:1', 'flow_map:2', 'flow_map:4')},
        }
    )
