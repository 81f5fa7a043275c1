"""One-step distillation of the digits' reflow run.

genbench train --config=configs/digits/reflow_distilled.py --workdir=runs/reflow_distilled

Train the teacher first: configs/digits/reflow.py, whose own teacher is configs/digits/flow_matching.py.

X. Liu et al., Flow Straight and Fast, 2023, section 2.2: the loss of reflow at pure noise alone, on the pairs of the
last flow. `family.time_sampler=steps:count=4` distils into four steps in the same way.

Differs from the paper: 10 steps of Heun's rule follow the teacher's ODE, instead of an adaptive solver. There are 4
pairs per train image. The distance is the mean square; on CIFAR-10 the paper uses LPIPS. Networks are small, and the
data set is different.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'flow_matching',
                'teacher': 'runs/reflow',
                'coupling': 'pairs:steps=10,copies=4',
                'time_sampler': 'steps:count=1',
            },
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('euler:1',)},
        }
    )
