"""GAN-10 of Wu, Burda, Salakhutdinov & Grosse 2017, table 2: a decoder for annealed importance sampling on MNIST.

genbench train --config=configs/paper/ais_gan_mnist.py --workdir=runs/ais_gan_10 --config.data.data_dir=DIR

GAN-50 is

    --config.network.latent=50 --config.network.hidden=(1024,1024,1024) --config.evaluation.ais.observation_scale=0.2

As in the authors' code (tonywu95/eval_gen), the generator is 10-64-256-256-1024-784 with tanh units. The observation
model is a normal around its output, with a variance of 0.025, or 0.01 for GAN-50, for values in [0, 1]. The evaluation
has their 16 chains, 10,000 distributions and 10 leapfrog steps, on 1,000 test images.

Differs from the paper: the authors' training is not published. Here the discriminator has layers of 512 and 256 tanh
units, the penalty is R1, the run is short, and 4 further chains adapt the step size. docs/reproductions/ais.md gives
the results.
"""

from ml_collections import ConfigDict

EPOCH = 50_000 // 100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist', 'train_split': 'train[:50000]'},
            'family': {'name': 'gan'},
            'network': {
                'name': 'mlp',
                'latent': 10,
                'hidden': (64, 256, 256, 1024),
                'decoder_hidden': (512, 256),
                'activation': 'tanh',
            },
            'train': {'num_steps': 40 * EPOCH, 'batch_size': 100, 'log_every': EPOCH, 'steps_per_call': 50},
            'checkpoint': {'every': 5 * EPOCH, 'keep': 1},
            'evaluation': {
                'metrics': ('ais', 'parzen_nats'),
                'ais': {
                    'num_steps': 10_000,
                    'chains': 16,
                    'leapfrog': 10,
                    'num_images': 1000,
                    'observation_scale': 2 * 0.025**0.5,
                },
                'num_samples': 10_000,
                'sets': 1,
                'batch_size': 500,
            },
        }
    )
