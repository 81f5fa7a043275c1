"""Residual Flow on CIFAR-10 with the settings of its official code: 25.2M parameters.

genbench train --config=configs/cifar10/residual_flow.py --workdir=runs/cifar10_residual_flow \
    --config.data.data_dir=DIR

Chen et al. 2019 report 3.28 bits per dimension and an FID of 46.4. We have not reproduced this yet.

The settings are the defaults of the official code: three scales of 16 residual blocks with 512 channels, four dense
blocks, norms of at most 0.98, two certain terms in training and twenty in evaluation, mirrored images, batches of 64,
Adam at 1e-3 with β₂ = 0.99 after 1,000 steps of warm-up, gradients clipped at 1 for a loss in bits per dimension, and
an average with decay 0.999. They last 1,000 epochs of 782 steps.

Differs from the paper: the code keeps the parameters with the best likelihood on the test images; genbench scores the
last step. Evaluation estimates each image's log-determinants twice instead of once. docs/deviations.md lists the other
differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'normalizing_flow'},
            'network': {
                'name': 'residual_flow', 'channels': 512, 'blocks': (16, 16, 16), 'dense_blocks': 4, 'dense_width': 128,
            },
            'train': {
                'num_steps': 782_000, 'batch_size': 64, 'sample_every': 78_200, 'ema_warmup': False,
            },
            'optimizer': {'b2': 0.99, 'warmup_steps': 1000},
            'checkpoint': {'every': 10_000},
        }
    )  # fmt: skip
