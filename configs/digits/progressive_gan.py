"""Progressive growing on digits: a GAN of 4×4 images that becomes one of 8×8.

genbench train --config=configs/digits/progressive_gan.py --workdir=runs/progressive_gan

The paper has no digits. One seed reached an FD of 10.5 ± 0.9 (standard deviation over eight sets) and a recall of 0.87.

Differs from the paper: the network is small, its length is ours, the average of the generator has a decay of 0.99 and
starts afresh with each stage, and real images get uniform noise in their bins. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'progressive_gan'},
            'train': {'num_steps': 3000, 'batch_size': 64, 'sample_every': 1000, 'ema_decay': 0.99},
        }
    )
