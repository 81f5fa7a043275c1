"""The VAE with gated units on MNIST that VampPrior and Exemplar VAE compare with: Norouzi, Fleet & Norouzi 2020.

genbench train --config=configs/paper/gated_vae_mnist.py --workdir=runs/gated_vae --config.data.data_dir=DIR

For the VampPrior with 500 pseudo-inputs (Tomczak & Welling 2018), add --config.family.pseudo_inputs=500. For images
that are binarised once, add --config.family.decoder=static_bernoulli.

The settings are those of both papers and of their codes. Encoder and decoder have two layers of 300 gated units, and
there are 40 latents. The weight of the KL term rises over 100 epochs. Adam has a learning rate of 5e-4, and the
gradient of each array of parameters is scaled to norm 1. Batches have 100 of the first 50,000 images, pixels are drawn
anew at every use, and the last 10,000 training images select the epoch that is scored. The score is the bound with
5,000 samples.

Differs from the paper: training does not stop when 50 epochs bring no better score. It takes all 2,000 epochs, of
which it keeps the best. docs/reproductions/vae.md has the other differences.
"""

from ml_collections import ConfigDict

EPOCH = 50_000 // 100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist', 'train_split': 'train[:50000]'},
            'family': {'name': 'vae', 'latent': 40, 'decoder': 'bernoulli', 'kl_warmup': 100 * EPOCH},
            'network': {'name': 'mlp', 'hidden': (300, 300), 'activation': 'gated', 'initial': 'he'},
            'train': {
                'num_steps': 2000 * EPOCH,
                'batch_size': 100,
                'log_every': EPOCH,
                'steps_per_call': 25,
                'ema_decay': 0.0,
                'evaluate_every': EPOCH,
                'evaluate_samples': 0,
                'evaluate_images': 10_000,
                'evaluate_split': 'train[50000:]',
            },
            'optimizer': {'learning_rate': 5e-4, 'unit_gradients': True, 'clip_norm': 0.0},
            'checkpoint': {'every': EPOCH, 'keep': 1, 'keep_best': 1, 'best_metric': 'evaluation/bits_per_dim'},
            'evaluation': {
                'average': 'current',
                'metrics': ('likelihood',),
                'likelihoods': ('elbo', 'iwae_5000'),
                'iwae_draws': 5000,
                'batch_size': 500,
            },
        }
    )
