"""Mean flows on CIFAR-10 (Geng et al. 2025), with the settings of the authors' PyTorch code for the paper (v0).

genbench train --config=configs/cifar10/mean_flow.py --workdir=runs/cifar10_mean_flow --config.data.data_dir=DIR

The paper reports FID 2.92 at one evaluation. The batch of 1,024 images is meant for 8 accelerators; train.accumulate
splits it on fewer. This has not been run here.

Differs from the paper: the error is the mean over pixels and not their sum, so that the constant in its weight counts
more. Augmentation also flips images upside down and rotates them, and rounds to levels. Pixels are at the centres of
their bins. Both times share one embedding of half the width.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    edm = config.read_file('cifar10/edm')
    return {
        'data': {'name': 'cifar10'},
        'family': {
            'name': 'mean_flow', 'apart': 0.75, 'adaptive': 0.75,
            'time_sampler': 'logit_normal:mean=-2,deviation=2', 'conditions': ('augmentation:12',),
            'dequantisation': 'none',
        },
        'network': {**edm['network'], 'taps': (1, 3, 3, 1), 'dropout': 0.2, 'time_scale': 1.0},
        'train': {
            'num_steps': 800_000, 'batch_size': 1024, 'sample_every': 40_000, 'ema_decay': 0.9999, 'ema_warmup': False,
        },
        'optimizer': {'learning_rate': 6e-4, 'warmup_steps': 10_000, 'clip_norm': 0.0},
        'checkpoint': {'every': 5000},
        'evaluation': {'samplers': ('flow_map:1',)},
    }  # fmt: skip
