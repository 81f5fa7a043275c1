"""Normalizing flow of affine couplings and 1×1 convolutions on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/normalizing_flow.py --workdir=runs/fashion_mnist_normalizing_flow \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families. That study has not been run to its end.

Differs from the paper: as configs/mnist/normalizing_flow.py, on other images.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('mnist/normalizing_flow')
    values['data']['name'] = 'fashion_mnist'
    return values
