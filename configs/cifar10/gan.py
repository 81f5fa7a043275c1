"""Non-saturating GAN with R1 on CIFAR-10, with the weight, latents and batch of Mescheder et al. 2018.

genbench train --config=configs/cifar10/gan.py --workdir=runs/cifar10_gan \
    --config.data.data_dir=DIR

The paper has no FID for CIFAR-10.

Differs from the paper: its networks resample by average pooling and nearest neighbour without convolutions, and narrow
the middle of each block. The paper uses RMSProp, whereas this config uses Adam at the same learning rate of 1e-4. The
paper adds no noise to real images. The length of training is our choice.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'gan', 'penalty_weight': 10.0},
            'network': {'channels': 64, 'multipliers': (1, 2, 4, 8), 'latent': 256},
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000},
            'optimizer': {'learning_rate': 1e-4},
            'checkpoint': {'every': 10_000},
        }
    )
