"""Progressive growing on digits: a GAN of 4×4 images that becomes one of 8×8.

genbench train --config=configs/digits/progressive_gan.py --workdir=runs/progressive_gan

The paper has no digits. One seed reached an FD of 10.5 and a recall of 0.87.

Differs from the paper: the network is small, its rates and its length are ours, latents are normal, and an average of
the generator is scored. See docs/deviations.md.
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
