"""Reflow of the digits flow-matching run, for samples in one evaluation.

genbench train --config=configs/digits/reflow.py --workdir=runs/reflow

Train the teacher first: configs/digits/flow_matching.py. docs/studies/few_step.md says what results to expect.

Differs from the paper: in X. Liu et al., Flow Straight and Fast, 2023, an adaptive solver follows the teacher's ODE.
Here 10 steps of Heun's rule do. There are 4 pairs per train image. Networks are small, and the data set is different.
`--config.family.teacher=runs/reflow` makes the next round, and configs/digits/reflow_distilled.py the distillation
after it.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'flow_matching', 'teacher': 'runs/flow_matching', 'coupling': 'pairs:steps=10,copies=4'},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('euler:1', 'euler:2', 'euler:5')},
        }
    )
