"""SNGAN on digits: the hinge loss, spectral normalisation, and a small network of the paper's blocks.

genbench train --config=configs/digits/sngan.py --workdir=runs/sngan

The paper has no digits. One seed reached an FD of 10.7, a recall of 0.87 and a coverage of 0.57.

Differs from the paper: the network and its rates are ours, there is one update of the discriminator for each of the
generator, and an average of the generator is scored. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'gan', 'loss': 'hinge', 'penalty': 'none'},
            'network': {'name': 'sngan'},
            'train': {'num_steps': 800, 'batch_size': 64, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'b2': 0.9, 'learning_rate': 1e-3, 'schedule': 'linear'},
        }
    )
