"""Reflow of the digits flow-matching run, for samples of one evaluation.

genbench train --config=configs/digits/reflow.py --workdir=runs/reflow

Train the teacher first: configs/digits/flow_matching.py.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'flow_matching', 'teacher': 'runs/flow_matching', 'coupling': 'pairs:copies=8'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('euler:1', 'euler:2', 'euler:5')},
        }
    )
