"""Normalizing flow of affine couplings and 1×1 convolutions on MNIST.

genbench train --config=configs/mnist/normalizing_flow.py --workdir=runs/mnist_normalizing_flow \
    --config.data.data_dir=DIR

experiments/mnist_families.py compares it with other families.

Differs from the paper: factored-out channels have no learned priors (Glow does), and the couplings' networks contain no
normalisation (both papers do). Channel mixing starts as a reversal instead of a random rotation. docs/deviations.md
lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'normalizing_flow'},
            'network': {'margin': 1e-3},
            'train': {'num_steps': 4000, 'batch_size': 32, 'sample_every': 1000, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
        }
    )
