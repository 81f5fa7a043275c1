"""R3GAN on digits: the relativistic loss with R1 and R2, and a small network of the paper's blocks.

genbench train --config=configs/digits/r3gan.py --workdir=runs/r3gan

The paper has no digits. One seed reached an FD of 13.2 and a recall of 0.64 in a run of 400 steps. The 600 steps of
this config have not been measured.

Differs from the paper: the network, its rates and its weight of the penalties are ours, nothing is augmented, and the
decays of Adam and of the average are constant. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {
                'name': 'gan',
                'loss': 'relativistic',
                'penalty': 'r1_r2',
                'penalty_falls_to': 0.1,
            },
            'network': {'name': 'r3gan', 'channels': 32, 'blocks': 1, 'label_features': 16},
            'train': {'num_steps': 600, 'sample_every': 120, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'linear'},
        }
    )
