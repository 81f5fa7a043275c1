"""Progressive growing on CIFAR-10, with the settings of Karras et al. 2018, appendix A.1.

genbench train --config=configs/cifar10/progressive_gan.py --workdir=runs/cifar10_progressive_gan \
    --config.data.data_dir=DIR

The paper's best Inception score without labels is 8.80, and its mean over ten runs is 8.56 ± 0.06. It gives no FID.
This config has not been run.

Networks, optimizer and stages are those of the authors' code with its preset v1: 800,000 images at 4 pixels, then
800,000 to fade in each resolution and as many to follow, 19 million in all, in batches of 16 at the rate 1e-3.

Differs from the paper: real images get uniform noise in their bins, and the average of the generator starts afresh with
each stage. See docs/deviations.md.
"""

from ml_collections import ConfigDict

BATCH = 16


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'progressive_gan', 'stage_images': 1_600_000},
            'network': {
                'name': 'progressive',
                'channels': 512,
                'multipliers': (1, 1, 1, 1),
                'latent': 512,
                'compared': 16,
            },
            'train': {'num_steps': 19_000_000 // BATCH, 'batch_size': BATCH, 'sample_every': 50_000},
            'checkpoint': {'every': 25_000},
            'evaluation': {'metrics': ('fd', 'inception_score')},
        }
    )
