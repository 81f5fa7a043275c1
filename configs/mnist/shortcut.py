"""Shortcut models on MNIST.

genbench train --config=configs/mnist/shortcut.py --workdir=runs/mnist_shortcut \
    --config.data.data_dir=DIR

experiments/mnist_families.py compares it with other families.

Differs from the paper: the data set is different, and the U-Net is small, without attention. Half of the images learn
jumps, which are halved four times instead of seven, because the run is short. There is no guidance. Pixels have uniform
noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'shortcut', 'consistent': 0.5, 'halvings': 4},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 1200, 'batch_size': 32, 'sample_every': 300, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('flow_map:1', 'flow_map:2', 'flow_map:4')},
        }
    )
