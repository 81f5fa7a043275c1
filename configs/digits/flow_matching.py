"""Flow matching on digits.

genbench train --config=configs/digits/flow_matching.py --workdir=runs/flow_matching
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'flow_matching'},
        'network': {'multipliers': (1, 1)},
        'train': {'num_steps': 500, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        'evaluation': {'samplers': ('euler:1', 'euler:2', 'euler:5', 'euler:10', 'euler:20', 'heun:10')},
    }
