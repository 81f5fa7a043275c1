"""VAE with a discretised-logistic decoder on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/vae.py --workdir=runs/fashion_mnist_vae \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families.

Differs from the paper: Kingma & Welling 2014 use fully connected networks with one hidden layer, Adagrad, and a
Bernoulli or normal decoder. Here networks are convolutional and residual, and the optimizer is Adam.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'vae', 'latent': 32, 'decoder': 'logistic'},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 4000, 'batch_size': 32, 'sample_every': 1000, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('mean', 'direct')},
        }
    )
