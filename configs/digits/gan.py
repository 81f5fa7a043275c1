"""Non-saturating GAN with R1 on digits.

genbench train --config=configs/digits/gan.py --workdir=runs/gan
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'gan'},
        'network': {'channels': 24, 'multipliers': (1, 2)},
        'train': {'num_steps': 900, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 1e-3},
    }
