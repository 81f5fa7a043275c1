"""A small very deep VAE on dynamically binarised MNIST: 14 layers of latents from 1×1 to 28×28.

genbench train --config=configs/mnist/vdvae.py --workdir=runs/mnist_vdvae \
    --config.data.data_dir=DIR

Images are binarised afresh at each use (Burda et al. 2016). This config has not been run to its end.

Differs from the paper: Child 2021 has no MNIST. The sizes and the length of training are our choices.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'vdvae', 'decoder': 'bernoulli'},
            'network': {
                'encoder': '28x1,28d2,14x2,14d2,7x2,7d7,1x2',
                'decoder': '1x2,7m1,7x5,14m7,14x4,28m14',
            },
            'train': {'num_steps': 20_000, 'batch_size': 64, 'sample_every': 4000},
            'optimizer': {
                'name': 'adamw',
                'schedule': 'cosine',
                'warmup_steps': 200,
                'weight_decay': 0.01,
                'b2': 0.9,
            },
            'evaluation': {'samplers': ('mean', 'direct'), 'iwae_draws': 100},
        }
    )
