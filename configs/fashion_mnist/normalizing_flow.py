"""Normalizing flow of affine couplings and 1×1 convolutions on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/normalizing_flow.py --workdir=runs/fashion_mnist_normalizing_flow \
    --config.data.data_dir=DIR

A look in a few minutes on two cores: --config.train.num_steps=300 --config.train.batch_size=32

Differs from the paper: no learned priors (Glow) where channels are factored out, no normalisation inside the
couplings' networks (both papers), channel mixing that starts as a reversal instead of a random rotation.
docs/deviations.md has the rest.
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
