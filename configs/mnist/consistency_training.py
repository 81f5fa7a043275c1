"""Consistency training on MNIST, without a teacher.

genbench train --config=configs/mnist/consistency_training.py --workdir=runs/mnist_consistency_training \
    --config.data.data_dir=DIR

This follows Y. Song, P. Dhariwal, Improved Techniques for Training Consistency Models, 2024, except as noted below.

experiments/mnist_families.py compares it with other families.

Differs from the paper: the data set is different, and the U-Net is small, without attention and dropout. Steps double
from 10 to 160 instead of 1280, within a short run. The trajectory ends at 0, where f(x, 0) = x, instead of at 0.002.
Pixels have uniform noise in their bins. The batch size is 32 instead of 1024. The optimizer is Adam at 1e-3 instead of
RAdam at 1e-4, and averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'consistency_training', 'most': 160},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 1200, 'batch_size': 32, 'sample_every': 300, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('multistep_consistency:1', 'multistep_consistency:spacing=80/0.821')},
        }
    )
