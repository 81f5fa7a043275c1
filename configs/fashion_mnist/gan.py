"""Non-saturating GAN with R1 on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/gan.py --workdir=runs/fashion_mnist_gan \
    --config.data.data_dir=DIR

For a first look in a few minutes on two cores, add --config.train.num_steps=300 --config.train.batch_size=64

Differs from the paper: Mescheder et al. 2018 resample by average pooling and nearest neighbour without convolutions,
and narrow the middle of each block. They use RMSProp with 1e-4, γ = 10, 256 latents and batches of 64, and add no noise
to real images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'fashion_mnist'},
            'family': {'name': 'gan', 'penalty_weight': 2.0},
            'network': {'multipliers': (1, 2, 2)},
            'train': {'num_steps': 20_000, 'sample_every': 4_000, 'ema_decay': 0.998},
            'optimizer': {'learning_rate': 1e-3},
        }
    )
