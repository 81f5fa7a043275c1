"""DCGAN on digits, small.

genbench train --config=configs/digits/dcgan.py --workdir=runs/dcgan

The paper has no digits. One seed reached an FD of 8.2, a recall of 0.90 and a coverage of 0.68.

Differs from the paper: the network is small, its rates and its length are ours, latents are normal, and an average of
the generator is scored. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'gan', 'penalty': 'none'},
            'network': {'name': 'dcgan'},
            'train': {'num_steps': 1500, 'batch_size': 64, 'sample_every': 500, 'ema_decay': 0.99},
            'optimizer': {'b1': 0.5, 'b2': 0.999, 'learning_rate': 5e-4, 'schedule': 'linear'},
        }
    )
