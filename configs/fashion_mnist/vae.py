"""VAE with a discretised logistic decoder on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/vae.py --workdir=runs/fashion_mnist_vae \
    --config.data.data_dir=DIR

For a first look in a few minutes on two cores, add --config.train.num_steps=300 --config.train.batch_size=64

Differs from the paper: Kingma & Welling 2014 use fully connected networks with one hidden layer, Adagrad, and a
Bernoulli or normal decoder. Here networks are convolutional and residual, and the optimizer is Adam.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'vae', 'latent': 32, 'decoder': 'logistic'},
            'network': {'multipliers': (1, 2, 2)},
            'train': {'num_steps': 20_000, 'sample_every': 4_000},
            'optimizer': {'warmup_steps': 100},
        }
    )
