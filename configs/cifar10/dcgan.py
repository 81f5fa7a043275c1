"""DCGAN on CIFAR-10, with the layers and the optimizer of Radford et al. 2016.

genbench train --config=configs/cifar10/dcgan.py --workdir=runs/cifar10_dcgan \
    --config.data.data_dir=DIR

Re-runs of one library have an FID of 49.03. This config has not been run.

The network is the paper's, which is for 64 pixels, without its highest resolution. A run has 100 epochs.

Differs from the paper: latents are normal, where the paper's are uniform, and real images get uniform noise in their
bins. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'gan', 'penalty': 'none'},
            'network': {'name': 'dcgan', 'channels': 128, 'multipliers': (1, 2, 4), 'latent': 100},
            'train': {'num_steps': 39_000, 'sample_every': 3_900, 'ema_decay': 0.0},
            'optimizer': {'b1': 0.5, 'b2': 0.999},
            'checkpoint': {'every': 3_900},
            'evaluation': {'average': 'current'},
        }
    )
