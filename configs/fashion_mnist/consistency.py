"""Consistency distillation of the Fashion-MNIST diffusion run.

genbench train --config=configs/fashion_mnist/consistency.py --workdir=runs/fashion_mnist_consistency \
    --config.data.data_dir=DIR

Train the teacher first: configs/fashion_mnist/diffusion.py. experiments/fashion_families.py compares it with others.
That study has not been run to its end.

Differs from the paper: as configs/mnist/consistency.py, on other images.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('mnist/consistency')
    values['data']['name'] = 'fashion_mnist'
    values['family']['teacher'] = 'runs/fashion_mnist_diffusion'
    return values
