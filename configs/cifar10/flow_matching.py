"""Flow matching on CIFAR-10 with the DDPM U-Net: batch 128, 400,000 steps, learning rate 2e-4.

genbench train --config=configs/cifar10/flow_matching.py --workdir=runs/cifar10_flow_matching \
    --config.data.data_dir=DIR

Published results for similar recipes are FID 3.66 (torchcfm, independent coupling) and 3.11 bits/dim (Lipman et al.
2023, K = 1). They have not been reproduced here yet.

Differs from the paper: Lipman et al. use 256 channels, no dropout, batch 256, learning rate 5e-4 with linear decay, and
σ_min > 0. Sizes and optimizer are torchcfm's. Differs from torchcfm in that pixels get uniform noise in their bins,
times are multiplied by 1,000 before their embedding, layers are initialised as in DDPM and not as in PyTorch, and
samples come from Euler and Heun steps and not from dopri5.
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
                'heads': 4,
                'groups': 32,
                'dropout': 0.1,
            },
            'train': {'num_steps': 400_000, 'sample_every': 50_000, 'ema_decay': 0.9999, 'ema_warmup': False},
            'optimizer': {'learning_rate': 2e-4, 'warmup_steps': 5000},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('euler:10', 'euler:100', 'heun:50')},
        }
    )
