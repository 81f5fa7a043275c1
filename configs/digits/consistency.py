"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'consistency', 'teacher': 'runs/diffusion'},
        'train': {'num_steps': 250, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 1e-3},
        'evaluation': {'samplers': ('consistency:1', 'consistency:2', 'consistency:4')},
    }
