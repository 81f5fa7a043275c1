"""Flow++ on CIFAR-10 with the settings of its official code: 31.4M parameters with the dequantiser.

genbench train --config=configs/cifar10/flowpp.py --workdir=runs/cifar10_flowpp \
    --config.data.data_dir=DIR

Ho et al. 2019 report 3.08 bits per dimension. We have not reproduced this yet.

The settings are those of the official code: ten blocks of 96 channels, mixtures of 32 logistics, dropout of 0.2,
batches of 64, Adam at 3e-4 after 2,000 steps of warm-up, and an average with decay 0.999. The code clips the norm of
the gradient at 1, for a loss in nats per image. For bits per dimension this is 4.7e-4. The code sets no length of
training; the length here is our choice.

Differs from the paper: the first batch, which initialises the network, has 64 images instead of 128. The official
evaluation averages importance weights of many draws; evaluation.dequantisation_draws sets their number here.
docs/deviations.md lists the other differences.
"""

import math

from ml_collections import ConfigDict

NATS_PER_BIT = 32 * 32 * 3 * math.log(2)  # nats per image for one bit per dimension


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {
                'name': 'normalizing_flow', 'dequantisation': 'variational', 'dequantiser_channels': 96,
                'dequantiser_components': 32,
            },
            'network': {'name': 'flowpp', 'channels': 96, 'blocks': 10, 'components': 32, 'dropout': 0.2},
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000},
            'optimizer': {'learning_rate': 3e-4, 'warmup_steps': 2000, 'clip_norm': 1 / NATS_PER_BIT},
            'checkpoint': {'every': 10_000},
        }
    )  # fmt: skip
