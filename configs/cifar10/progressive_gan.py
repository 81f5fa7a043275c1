"""Progressive growing on CIFAR-10, with the settings of the authors' first code (Karras et al. 2018, section 6.5).

genbench train --config=configs/cifar10/progressive_gan.py --workdir=runs/cifar10_progressive_gan \
    --config.data.data_dir=DIR

The paper's best Inception score without labels is 8.80, and its mean over ten runs is 8.56 ± 0.06. It gives no FID.
This config has not been run.

Settings are those of the block for CIFAR-10 in the Theano branch of the authors' repository: 128 channels and latents,
400,000 images at 4 pixels, then 400,000 to fade in each resolution and as many to follow, 20 million in all, in batches
of 16 at the rate 1e-3, and a gradient penalty that asks for a norm of 750.

Differs from the paper: its code updates both networks from one batch of fake images, real images get uniform noise in
their bins here, and the average of the generator starts afresh with each stage. See docs/deviations.md.
"""

from ml_collections import ConfigDict

BATCH = 16


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {'name': 'progressive_gan', 'stage_images': 800_000, 'penalty_target': 750.0},
            'network': {
                'name': 'progressive',
                'channels': 128,
                'multipliers': (1, 1, 1, 1),
                'latent': 128,
                'compared': 16,
            },
            'train': {'num_steps': 20_000_000 // BATCH, 'batch_size': BATCH, 'sample_every': 50_000},
            'checkpoint': {'every': 25_000},
            'evaluation': {'metrics': ('fd', 'inception_score')},
        }
    )
