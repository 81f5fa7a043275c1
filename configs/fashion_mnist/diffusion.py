"""DDPM with the cosine schedule and v prediction on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/diffusion.py --workdir=runs/fashion_mnist_diffusion \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families. That study has not been run to its end.

Differs from the paper: as configs/mnist/diffusion.py, on other images.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('mnist/diffusion')
    values['data']['name'] = 'fashion_mnist'
    return values
