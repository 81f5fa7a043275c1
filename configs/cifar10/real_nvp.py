"""RealNVP on CIFAR-10 with the settings of its paper: two scales, networks of 8 residual blocks and 64 feature maps.

genbench train --config=configs/cifar10/real_nvp.py --workdir=runs/cifar10_real_nvp \
    --config.data.data_dir=DIR

Dinh et al. 2017 report 3.49 bits per dimension. We have not reproduced this yet.

The paper gives logits with α = 0.05, mirrored images, batches of 64, Adam at 1e-3 and the penalty of 5e-5 on scales.
The official code clips the norm of the gradient at 100, for a loss in nats per image. For bits per dimension this is
0.047. The paper does not say how long it trains; the length is our choice.

Differs from the paper: what the networks do inside follows the official code, which has no settings for CIFAR-10.
docs/deviations.md lists the other differences.
"""

import math

from ml_collections import ConfigDict

NATS_PER_BIT = 32 * 32 * 3 * math.log(2)  # nats per image for one bit per dimension


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'normalizing_flow', 'scale_penalty': 5e-5},
            'network': {'name': 'real_nvp'},
            'train': {'num_steps': 500_000, 'batch_size': 64, 'sample_every': 50_000},
            'optimizer': {'clip_norm': 100 / NATS_PER_BIT},
            'evaluation': {'average': 'current'},
            'checkpoint': {'every': 10_000},
        }
    )
