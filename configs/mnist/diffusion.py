"""DDPM with the cosine schedule and v prediction on MNIST.

genbench train --config=configs/mnist/diffusion.py --workdir=runs/mnist_diffusion \
    --config.data.data_dir=DIR

experiments/mnist_families.py compares it with other families.

Differs from the paper: the data set is different, and the U-Net is small, without attention and dropout. The cosine
schedule and v prediction are from later papers. Pixels have uniform noise in their bins. The learning rate, averaging
and its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'diffusion'},
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 2000, 'batch_size': 32, 'sample_every': 500, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'cosine', 'warmup_steps': 100},
            'evaluation': {'samplers': ('ddim:1', 'ddim:5', 'ddim:20', 'ancestral:50')},
        }
    )
