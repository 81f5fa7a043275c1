"""The suite of MAF on MNIST: Papamakarios, Pavlakou & Murray 2017, as run again by kamenbliznashki/normalizing_flows.

genbench train --config=configs/paper/maf_mnist.py --workdir=runs/maf --config.data.data_dir=DIR

This is MAF (5). The other models are

    MADE          --config.network.layers=1 --config.network.normalise=False
    MADE MoG      --config.network.layers=0 --config.network.components=10
    RealNVP (5)   --config.network.transform=coupling
    MAF MoG (5)   --config.network.components=10

As in the repeated suite, units are ReLUs, orderings alternate between raster order and its reverse, and batch
normalisation follows each layer. Images are dequantised once and pass through a logit with α = 1e-6. Adam uses a
learning rate of 1e-4, with batches of 100 and 50 epochs of all 60,000 training images. The two hidden layers of 1,024
come from the authors' own code for MNIST, gpapamak/maf. The repeated suite does not state them for its table.

The suite adds 1e-6 times the weights to its gradients and has Adam's ε of 1e-8. Both belong to a loss in nats. The loss
here is in bits per dimension, so both are divided by 784 ln 2.

Differs from the paper: training ends after 50 epochs, as in the repeated suite, instead of by early stopping.
Differs from the repeated suite: the suite's batch normalisation uses the unbiased variance, and its running statistics
start at 0 and 1. In its RealNVP, the network for the shifts starts as a copy of the network for the scales.
docs/reproductions/maf.md says more.
"""

import math

from ml_collections import ConfigDict

NATS = 1 / (784 * math.log(2))  # one nat in bits per dimension
EPOCH = 60_000 // 100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'normalizing_flow', 'noise': 'static'},
            'network': {'name': 'maf'},
            'train': {'num_steps': 50 * EPOCH, 'batch_size': 100, 'log_every': EPOCH // 6},
            'optimizer': {'learning_rate': 1e-4, 'clip_norm': 0.0, 'l2': 1e-6 * NATS, 'epsilon': 1e-8 * NATS},
            'checkpoint': {'every': EPOCH, 'keep': 1},
            'evaluation': {'average': 'current', 'metrics': ('likelihood',), 'batch_size': 500},
        }
    )
