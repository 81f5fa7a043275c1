"""Glow's sizes on CIFAR-10: three scales of 32 steps, couplings of 512 channels, Adam at 1e-3.

genbench train --config=configs/cifar10/normalizing_flow.py --workdir=runs/cifar10_normalizing_flow \
    --config.data.data_dir=DIR

Kingma & Dhariwal 2018 report 3.35 bits per dimension. We have not reproduced this yet.

Differs from the paper: factored-out channels have no learned priors, the couplings' networks contain no normalisation,
channel mixing starts as a reversal instead of a random rotation, and pixels pass through a logit as in RealNVP. The
length of training and the batch size are our choices. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'normalizing_flow'},
            'network': {'channels': 512, 'multipliers': (1, 1, 1), 'steps': 32, 'margin': 0.05},
            'train': {'num_steps': 500_000, 'batch_size': 512, 'sample_every': 50_000, 'ema_decay': 0.9999},
            'optimizer': {'warmup_steps': 1000},
            'checkpoint': {'every': 10_000},
        }
    )
