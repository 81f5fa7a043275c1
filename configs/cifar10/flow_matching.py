"""Flow matching on CIFAR-10 with the DDPM U-Net: batch 128, 400,000 steps, learning rate 2e-4.

genbench train --config=configs/cifar10/flow_matching.py --workdir=runs/cifar10_flow_matching \
    --config.data.data_dir=DIR

Published for this recipe: FID 3.5 (OT-CFM repository), 2.99 bits/dim (Lipman et al. 2023, other batch). Not yet
reproduced here.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'flow_matching'},
            'network': {
                'channels': 128,
                'multipliers': (1, 2, 2, 2),
                'blocks': 2,
                'attention': (16,),
                'groups': 32,
                'dropout': 0.1,
            },
            'train': {'num_steps': 400_000, 'sample_every': 50_000, 'ema_decay': 0.9999},
            'optimizer': {'learning_rate': 2e-4, 'warmup_steps': 5000},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('euler:10', 'euler:100', 'heun:50')},
        }
    )
