"""Flow matching on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/flow_matching.py --workdir=runs/fashion_mnist_flow_matching \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families.

Differs from the paper: the data set is different, and the U-Net is small, without attention. σ_min = 0. Pixels have
uniform noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'flow_matching'},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 2000, 'batch_size': 32, 'sample_every': 500, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('euler:1', 'euler:5', 'euler:20', 'heun:10')},
        }
    )
