"""Non-saturating GAN with R1 on Fashion-MNIST.

genbench train --config=configs/fashion_mnist/gan.py --workdir=runs/fashion_mnist_gan \
    --config.data.data_dir=DIR

experiments/fashion_families.py compares it with other families.

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
            'network': {'channels': 16, 'multipliers': (1, 2, 4)},
            'train': {'num_steps': 2000, 'batch_size': 32, 'sample_every': 500, 'ema_decay': 0.995},
            'optimizer': {'schedule': 'linear'},
        }
    )
