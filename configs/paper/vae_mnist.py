"""The VAE of PyTorch's examples on MNIST, and a deeper one: re-runs of Kingma & Welling 2014 that state a test loss.

genbench train --config=configs/paper/vae_mnist.py --workdir=runs/vae --config.data.data_dir=DIR

This is the model of pytorch/examples (vae/main.py). Two others are those of kaiqi-ken/planar-flow-pytorch without its
flows:

    grey values      --config.network.hidden=(512,256) --config.network.decoder_hidden=(256,512)
    binary values    the same with --config.family.decoder=threshold_bernoulli

As in the repeated code, the networks have ReLUs and 20 latents. Adam has a learning rate of 1e-3, batches have 128
images, and training has ten epochs. The last state is scored, with one draw for each test image. The loss of grey
values is their cross-entropy, which bounds the mean log-likelihood of binary images that are drawn with the pixels as
probabilities. Binary values are the pixels binarised at one half.

Weights and biases start as PyTorch's. Adam's ε is in the units of the repeated loss, which is a sum over the batch in
nats here, and its mean for the others (--config.optimizer.epsilon=1.84e-11).

Differs from the paper: it shows no such numbers, and the recipe follows the repeated code. There, the encoder gives
log σ² and an epoch has 469 batches. Here, it gives log σ and an epoch has 468.75. docs/reproductions/vae.md
gives the results.
"""

import math

from ml_collections import ConfigDict

EPOCH = 469
BITS = 1 / (784 * math.log(2))  # one nat in bits per dimension, the unit of our loss


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'vae', 'latent': 20, 'decoder': 'grey_bernoulli'},
            'network': {'name': 'mlp', 'hidden': (400,), 'activation': 'relu', 'initial': 'as_pytorch'},
            'train': {
                'num_steps': 10 * EPOCH,
                'log_every': EPOCH,
                'steps_per_call': 35,
                'ema_decay': 0.0,
            },
            'optimizer': {'epsilon': 1e-8 * BITS / 128, 'clip_norm': 0.0},
            'checkpoint': {'every': 5 * EPOCH},
            'evaluation': {
                'average': 'current',
                'metrics': ('likelihood',),
                'likelihoods': ('elbo',),
                'batch_size': 500,
            },
        }
    )
