"""BigGAN on CIFAR-10 with classes, with the blocks of Brock et al. 2019.

genbench train --config=configs/cifar10/biggan.py --workdir=runs/cifar10_biggan \
    --config.data.data_dir=DIR

The paper's FID is 14.73. This config has not been run.

The paper has no settings for CIFAR-10. The widths, the rates, the batch and the four updates of the discriminator for
one of the generator are those that ajbrock/BigGAN-PyTorch has for it, without self-attention. The rest is as in the
paper for ImageNet: a shared class embedding and parts of z reach every block, first weights are orthogonal, and the
generator's kernels are pulled towards orthogonal ones. The code leaves these out for CIFAR-10.

Differs from the paper: samples are normalised by running statistics of training batches, where the paper collects them
anew with the averaged weights. See docs/deviations.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'gan',
                'conditional': True,
                'loss': 'hinge',
                'penalty': 'none',
                'critic_steps': 4,
                'orthogonality': 1e-4,
            },
            'network': {
                'name': 'sngan',
                'channels': 256,
                'multipliers': (1, 1, 1, 1),
                'latent': 128,
                'shared': 128,
                'split': True,
                'spectral_generator': True,
                'discriminator_channels': 256,
                'discriminator_multipliers': (1, 1, 1, 1),
                'halvings': 2,
                'start': 'orthogonal',
            },
            'train': {'num_steps': 500_000, 'batch_size': 50, 'sample_every': 50_000},
            'optimizer': {'b2': 0.999},
            'checkpoint': {'every': 10_000},
        }
    )
