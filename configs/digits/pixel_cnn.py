"""PixelCNN++ on digits: an exact probability of the integer pixels, drawn pixel by pixel.

genbench train --config=configs/digits/pixel_cnn.py --workdir=runs/pixel_cnn

One run (seed 0) reached 1.795 ± 0.014 bits per dimension on the test images, which is exact, in about five minutes of
CPU time. The bound of `digits/normalizing_flow` with four draws is 2.001 ± 0.017 (docs/studies/digits_families.md).

Differs from the paper: pixels have one channel, 17 levels and a categorical distribution; two resolutions with two
blocks each instead of three with five, and 32 channels instead of 160; Adam with a cosine schedule. docs/deviations.md
lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'autoregressive'},
            'network': {'name': 'pixel_cnn', 'dropout': 0.5},
            'train': {'num_steps': 600, 'sample_every': 300, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine'},
        }
    )
