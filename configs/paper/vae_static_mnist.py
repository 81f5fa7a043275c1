"""The VAE of jaanli/variational-autoencoder in JAX on statically binarised MNIST, a re-run of Kingma & Welling 2014.

genbench train --config=configs/paper/vae_static_mnist.py --workdir=runs/vae --config.data.data_dir=DIR

The settings are those of the repeated code (train_variational_autoencoder_jax.py --variational mean-field). Encoder and
decoder have two layers of 512 ReLUs, and there are 128 latents. RMSProp has a learning rate of 1e-3 and a decay of 0.9.
Batches have 128 of the first 50,000 images, and the state after 30,000 updates is scored. Training estimates the KL
term from its draws, and log p(x) is estimated from 1,000 draws.

Differs from the paper: it shows no such numbers. Differs from the repeated code: the binary images are a different draw
than those of Larochelle, and σ of q(z | x) is an exponential instead of a softplus. docs/reproductions/vae.md gives the
results.
"""

import math

from ml_collections import ConfigDict

BITS = 1 / (784 * math.log(2))  # one nat in bits per dimension, the unit of our loss; theirs is a sum of 128 in nats


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist', 'train_split': 'train[:50000]'},
            'family': {'name': 'vae', 'latent': 128, 'decoder': 'static_bernoulli', 'objective': 'iwae'},
            'network': {'name': 'mlp', 'hidden': (512, 512), 'activation': 'relu', 'initial': 'lecun'},
            'train': {
                'num_steps': 30_000,
                'log_every': 1000,
                'steps_per_call': 50,
                'ema_decay': 0.0,
            },
            'optimizer': {'name': 'rmsprop', 'b2': 0.9, 'epsilon': 1e-8 * (BITS / 128) ** 2, 'clip_norm': 0.0},
            'checkpoint': {'every': 5000, 'keep': 1},
            'evaluation': {
                'average': 'current',
                'metrics': ('likelihood',),
                'likelihoods': ('elbo', 'iwae_1000'),
                'iwae_draws': 1000,
                'batch_size': 500,
            },
        }
    )
