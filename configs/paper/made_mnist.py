"""MADE with one hidden layer on statically binarised MNIST: Germain, Gregor, Murray & Larochelle 2015, table 6.

genbench train --config=configs/paper/made_mnist.py --workdir=runs/made --config.data.data_dir=DIR

This config uses one ordering. It follows the authors' command for MNIST: 8,000 ReLU units in the hidden layer, masked
connections from inputs to outputs, a random ordering, orthogonal initial weights, Adagrad with a learning rate of 0.01,
and batches of 100. The last 10,000 training images select the epoch that is scored.

Differs from the paper: the binary images are a different draw, training ends after 50 epochs, and some settings come
from the authors' command for another row. docs/reproductions/made.md says more.
"""

import math

from ml_collections import ConfigDict

EPOCH = 50_000 // 100
BITS = 1 / (784 * math.log(2))  # one nat in bits per dimension, the unit of our loss; the paper's loss is in nats


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist', 'train_split': 'train[:50000]'},
            'family': {'name': 'autoregressive', 'decoder': 'static_bernoulli'},
            'network': {'hidden': (8000,), 'kernels': 'orthogonal'},
            'train': {
                'num_steps': 50 * EPOCH,
                'batch_size': 100,
                'log_every': EPOCH // 5,
                'ema_decay': 0.0,  # the score of the average is that of the current parameters
                'evaluate_every': EPOCH,
                'evaluate_samples': 0,
                'evaluate_images': 10_000,
                'evaluate_split': 'train[50000:]',
            },
            'optimizer': {'name': 'adagrad', 'learning_rate': 0.01, 'epsilon': 1e-6 * BITS**2, 'clip_norm': 0.0},
            'checkpoint': {'every': EPOCH, 'keep': 1, 'keep_best': 1, 'best_metric': 'evaluation/bits_per_dim'},
            'evaluation': {'average': 'current', 'metrics': ('likelihood',), 'batch_size': 500},
        }
    )
