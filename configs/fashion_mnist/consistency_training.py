"""Consistency training on Fashion-MNIST, without a teacher.

genbench train --config=configs/fashion_mnist/consistency_training.py --workdir=runs/fashion_ct \
    --config.data.data_dir=DIR

This follows Y. Song, P. Dhariwal, Improved Techniques for Training Consistency Models, 2024, except as noted below.

experiments/fashion_families.py compares it with other families. That study has not been run to its end.

Differs from the paper: as configs/mnist/consistency_training.py, on other images.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('mnist/consistency_training')
    values['data']['name'] = 'fashion_mnist'
    return values
