"""Flow matching on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/flow_matching.py --workdir=runs/fashion_mnist_flow_matching \
    --config.data.data_dir=DIR

For a first look in a few minutes on two cores, add --config.train.num_steps=300 --config.train.batch_size=64

Differs from the paper: the data set is different, and the U-Net is small, without attention. σ_min = 0. Pixels have
uniform noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'flow_matching'},
            'network': {'multipliers': (1, 2, 2)},
            'train': {'num_steps': 20_000, 'sample_every': 4_000, 'ema_decay': 0.9995},
            'optimizer': {'learning_rate': 5e-4, 'warmup_steps': 100},
        }
    )
