"""VAE with a discretised-logistic decoder on CIFAR-10, 128 latents and residual networks of 128 to 512 channels.

genbench train --config=configs/cifar10/vae.py --workdir=runs/cifar10_vae \
    --config.data.data_dir=DIR

No number has been published for this model.

Differs from the paper: Kingma & Welling 2014 use no colour images. They use fully connected networks with one hidden
layer, Adagrad, and a Bernoulli or normal decoder. Here the networks are convolutional and residual, and the optimizer
is Adam. The sizes and the length of training are our choices.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'vae', 'latent': 128, 'decoder': 'logistic'},
            'network': {'channels': 128, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 200_000, 'sample_every': 20_000, 'ema_decay': 0.9999},
            'optimizer': {'learning_rate': 2e-4, 'warmup_steps': 1000},
            'checkpoint': {'every': 10_000},
        }
    )
