"""Non-saturating GAN with R1 on digits.

genbench train --config=configs/digits/gan.py --workdir=runs/gan
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'gan'},
        'network': {'channels': 16},
        'train': {'num_steps': 600, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 2e-3, 'schedule': 'linear'},
    }
