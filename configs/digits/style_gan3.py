"""StyleGAN3-T on digits, small.

genbench train --config=configs/digits/style_gan3.py --workdir=runs/style_gan3

The paper has no digits. One seed reached an FD of 11.6 ± 1.2, a recall of 0.74 and a coverage of 0.48, and most of its
samples are digits. After 600 steps instead of 3,000, FD was 36.5 and samples were loops and strokes. Its equivariance
to translation is 22.3 dB by whole pixels and 24.1 dB by fractions.

Differs from the paper: the network, its rates and its penalty are ours. It has three layers, Fourier features of at
most one cycle per image, and a margin of two samples. Nothing is augmented. The running mean of squared inputs is
faster, because the run is short. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'style_gan', 'penalty_every': 4, 'mixing': 0.0, 'path_length_weight': 0.0},
            'network': {
                'name': 'stylegan3',
                'channels': 16,
                'layers': 3,
                'critical': 1,
                'first_cutoff': 1.0,
                'margin': 2,
                'magnitude_decay': 0.99,
            },
            'train': {'num_steps': 3000, 'batch_size': 64, 'sample_every': 500, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-3, 'schedule': 'linear'},
        }
    )
