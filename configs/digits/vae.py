"""VAE with a categorical decoder on digits.

genbench train --config=configs/digits/vae.py --workdir=runs/vae

docs/studies/digits_families.md says what results to expect.

Differs from the paper: Kingma & Welling 2014 use fully connected networks with one hidden layer, Adagrad, and a
Bernoulli or normal decoder. Here networks are convolutional and residual, and the optimizer is Adam.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'vae'},
            'network': {'channels': 16, 'dropout': 0.1},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('mean', 'direct')},
        }
    )
