"""This project's family on 8×8 digits.

genbench train --config=configs/digits.py --workdir=runs/digits

Expect 2.40 ± 0.01 bits per dimension (360 test images) after a few seconds of training.
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'my_family', 'modules': ('my_family',)},
        'train': {'num_steps': 500, 'ema_decay': 0.99},
        'optimizer': {'learning_rate': 3e-2, 'schedule': 'cosine'},
        'evaluation': {'num_samples': 180, 'sets': 8},
    }
