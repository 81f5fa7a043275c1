"""The full-covariance Gaussian in closed form: one step over the 1,437 train digits.

genbench train --config=configs/digits/gaussian.py --workdir=runs/gaussian
"""


def get_config():
    return {
        'data': {'name': 'digits'},
        'family': {'name': 'gaussian'},
        'train': {'num_steps': 1, 'batch_size': 1437},
    }
