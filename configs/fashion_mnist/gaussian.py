"""The full-covariance Gaussian of Fashion-MNIST in closed form: one pass over the 60,000 train images.

genbench train --config=configs/fashion_mnist/gaussian.py --workdir=runs/fashion_mnist_gaussian \
    --config.data.data_dir=DIR

It gives the floor of experiments/fashion_families.py, which has not been run to its end.

No paper to differ from: the moments are the maximum-likelihood estimate.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('mnist/gaussian')
    values['data']['name'] = 'fashion_mnist'
    return values
