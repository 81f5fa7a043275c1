"""DDPM with the cosine schedule and v prediction on digits.

genbench train --config=configs/digits/diffusion.py --workdir=runs/diffusion
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'diffusion'},
        'network': {'multipliers': (1, 1)},
        'train': {'num_steps': 500, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        'evaluation': {'samplers': ('ddim:1', 'ddim:2', 'ddim:5', 'ddim:10', 'ddim:20', 'ancestral:20')},
    }
