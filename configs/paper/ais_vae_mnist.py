"""VAE-10 of Wu, Burda, Salakhutdinov & Grosse 2017, table 2: a decoder for annealed importance sampling on MNIST.

genbench train --config=configs/paper/ais_vae_mnist.py --workdir=runs/ais_vae_10 --config.data.data_dir=DIR

VAE-50 is

    --config.family.latent=50 --config.network.hidden=(1024,256,256,64) --config.network.decoder_hidden=(1024,1024,1024)
    --config.family.observation_scale=0.14142

As in the authors' code (tonywu95/eval_gen), the decoder is 10-64-256-256-1024-784 and the encoder 784-256-64-10, both
with tanh units. p(x | z) is a normal whose variance is 0.03, or 0.005 for VAE-50, for values in [0, 1]. The evaluation
has their 16 chains, 10,000 distributions and 10 leapfrog steps, on 1,000 test images.

Differs from the paper: the run is short, with a learning rate of 3e-4. The name of the authors' file says 1e-5 and
4,000 epochs. No sigmoid limits the mean of p(x | z) to [0, 1], and 4 further chains adapt the step size.
docs/reproductions/ais.md gives the results.
"""

from ml_collections import ConfigDict

EPOCH = 50_000 // 100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist', 'train_split': 'train[:50000]'},
            'family': {'name': 'vae', 'latent': 10, 'decoder': 'normal', 'observation_scale': 2 * 0.03**0.5},
            'network': {
                'name': 'mlp',
                'hidden': (256, 64),
                'decoder_hidden': (64, 256, 256, 1024),
                'activation': 'tanh',
            },
            'train': {'num_steps': 20 * EPOCH, 'batch_size': 100, 'log_every': EPOCH, 'steps_per_call': 50},
            'optimizer': {'learning_rate': 3e-4},
            'checkpoint': {'every': 5 * EPOCH, 'keep': 1},
            'evaluation': {
                'metrics': ('ais', 'likelihood', 'parzen_nats'),
                'likelihoods': ('iwae_5000',),
                'iwae_draws': 5000,
                'ais': {'num_steps': 10_000, 'chains': 16, 'leapfrog': 10, 'num_images': 1000},
                'samplers': ('mean',),
                'num_samples': 10_000,
                'sets': 1,
                'batch_size': 500,
            },
        }
    )
