"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'consistency', 'teacher': 'runs/diffusion'},
        'train': {'num_steps': 250, 'ema_decay': 0.99},
        'evaluation': {'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4')},
    }
