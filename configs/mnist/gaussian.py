"""The full-covariance Gaussian of MNIST in closed form: one pass over the 60,000 train images.

genbench train --config=configs/mnist/gaussian.py --workdir=runs/mnist_gaussian \
    --config.data.data_dir=DIR

No paper to differ from: the moments are the maximum-likelihood estimate.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'gaussian'},
            'train': {'num_steps': 120, 'batch_size': 500},
        }
    )
