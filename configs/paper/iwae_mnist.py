"""VAE and IWAE with one stochastic layer on MNIST: Burda, Grosse & Salakhutdinov 2016, table 1, first rows.

genbench train --config=configs/paper/iwae_mnist.py --workdir=runs/iwae_1 --config.data.data_dir=DIR

This is k = 1, for which VAE and IWAE are the same. For IWAE with k = 5, add --config.family.draws=5. For VAE with
k = 5, add --config.family.objective=elbo --config.family.draws=5.

As in the paper: images are binarised afresh at each use, encoder and decoder have two layers of 200 tanh units, there
are 50 latents, weights start as in Glorot & Bengio 2010, Adam has β = (0.9, 0.999) and ε = 1e-4, batches have 20
images, and training takes 3^i epochs at the rate 1e-3 · 10^(−i/7) for i = 0 … 7. The score is the bound with 5,000
samples.

The paper does not say in which unit of the loss Adam has this ε. The authors' code takes the gradient of a batch's sum
in nats. The loss here is a batch's mean in bits per dimension, so ε is smaller by the same factor.
docs/reproductions/iwae.md shows how much that matters.

The paper does not say how biases start either. In the authors' code the biases of the decoder's last layer start at the
logits of the mean training image, and the others at zero. So they do here.

Differs from the paper: for k > 1, the VAE's KL term is in closed form. The paper estimates it from the samples, which
is also how IWAE's objective works here.
"""

import math

from ml_collections import ConfigDict

BATCH = 20
EPOCH = 60_000 // BATCH
BITS = 1 / (784 * math.log(2))  # one nat in bits per dimension
ENDS = [EPOCH * sum(3**i for i in range(stage + 1)) for stage in range(8)]


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {
                'name': 'vae',
                'latent': 50,
                'decoder': 'bernoulli',
                'objective': 'iwae',
                'mean_image': True,
            },
            'network': {'name': 'mlp', 'hidden': (200, 200), 'activation': 'tanh'},
            'train': {
                'num_steps': ENDS[-1],
                'batch_size': BATCH,
                'initial_images': 60_000,
                'log_every': EPOCH,
                'steps_per_call': 30,
            },
            'optimizer': {
                'epsilon': 1e-4 * BITS / BATCH,
                'schedule': 'steps',
                'drops': tuple(ENDS[:-1]),
                'drop_factor': 10 ** (-1 / 7),
                'clip_norm': 0.0,
            },
            'checkpoint': {'every': 10 * EPOCH},
            'evaluation': {
                'average': 'current',
                'metrics': ('likelihood',),
                'likelihoods': ('elbo', 'iwae_5000'),
                'iwae_draws': 5000,
                'batch_size': 500,
            },
        }
    )
