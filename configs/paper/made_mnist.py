"""MADE with one hidden layer on statically binarised MNIST: Germain, Gregor, Murray & Larochelle 2015, table 6.

genbench train --config=configs/paper/made_mnist.py --workdir=runs/made --config.data.data_dir=DIR

This is one ordering. As in the authors' command for MNIST: 8,000 rectified units in a hidden layer, masked connections
from inputs to outputs, a random ordering, orthogonal initial weights, Adagrad with the rate 0.01, batches of 100.

docs/reproductions/made.md lists the differences.
"""

from ml_collections import ConfigDict

EPOCH = 60_000 // 100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'autoregressive', 'decoder': 'static_bernoulli'},
            'network': {'hidden': (8000,)},
            'train': {'num_steps': 30 * EPOCH, 'batch_size': 100, 'log_every': EPOCH // 6},
            'optimizer': {'name': 'adagrad', 'learning_rate': 0.01, 'epsilon': 1e-6, 'clip_norm': 0.0},
            'checkpoint': {'every': EPOCH, 'keep': 1},
            'evaluation': {'average': 'current', 'metrics': ('likelihood',), 'batch_size': 500},
        }
    )
