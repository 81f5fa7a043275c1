"""Glow-style normalizing flow on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/normalizing_flow.py --workdir=runs/fashion_mnist_normalizing_flow \
    --config.data.data_dir=DIR

A look in a few minutes on two cores: --config.train.num_steps=300 --config.train.batch_size=32
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'normalizing_flow'},
            'network': {'channels': 128, 'steps': 12, 'margin': 1e-3},
            'train': {'num_steps': 50_000, 'sample_every': 10_000},
            'optimizer': {'warmup_steps': 500},
        }
    )
