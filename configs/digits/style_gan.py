"""StyleGAN2 on digits, small.

genbench train --config=configs/digits/style_gan.py --workdir=runs/style_gan

The paper has no digits. One run (seed 0) reached an FD of 18.2 ± 2.8 and a recall of 0.71 ± 0.07, where ± is the
standard deviation over eight sets of 180 samples. docs/families/style_gan.md has its truncation curve.

Differs from the paper: the network, its rate and its penalty are ours, and nothing is augmented. As in the paper's code
for CIFAR-10, styles are not mixed and path lengths are not regularised. The running mean of path lengths starts at
zero and lags behind in a run as short as this one. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'style_gan', 'penalty_every': 4, 'mixing': 0.0, 'path_length_weight': 0.0},
            'network': {'channels': 16},
            'train': {'num_steps': 600, 'sample_every': 120, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-3, 'schedule': 'linear'},
        }
    )
