"""Inductive moment matching on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/inductive_moment_matching.py --workdir=runs/fashion_imm \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families.

Differs from the paper: the data set is different, and the U-Net is small, without attention. r is 0.05 in time before
t, instead of 1/2¹² of the noise levels, so that jumps spread over the path within a short run. There is no guidance.
Pixels have uniform noise in their bins. The learning rate, averaging and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'inductive_moment_matching'},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 1200, 'batch_size': 32, 'sample_every': 300, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('flow_map:1', 'flow_map:2', 'flow_map:4')},
        }
    )
