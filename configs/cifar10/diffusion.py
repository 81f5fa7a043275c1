"""DDPM on CIFAR-10 as in Ho et al. 2020, appendix B: linear schedule, noise prediction, 35.7M parameters.

genbench train --config=configs/cifar10/diffusion.py --workdir=runs/cifar10_diffusion \
    --config.data.data_dir=DIR

The paper reports FID 3.17 with the reverse variance β (ancestral:1000:variance=large) and VLB <= 3.75 bits/dim. These
have not been reproduced here yet. The paper's text allows β_t and β̃_t. Its code scored with `fixedlarge` and clipped
the predicted images. DDIM's numbers for this model (J. Song et al. 2021, table 1) use spacing=ddim_quad and no
clipping.

Differs from the paper: pixels are at the centres of their bins, (2k + 1) / 256 − 1 instead of 2k / 255 − 1. Step n is
embedded as n, not as n − 1. Layers that start near zero in the paper start at zero. The gradient of the whole batch is
clipped, not that of each device.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'diffusion',
                'schedule': 'linear',
                'prediction': 'noise',
                'dequantisation': 'none',
                'clip': True,
            },
            'network': {
                'channels': 128,
                'multipliers': (1, 2, 2, 2),
                'blocks': 2,
                'attention': (16,),
                'groups': 32,
                'dropout': 0.1,
            },
            'train': {'num_steps': 800_000, 'sample_every': 100_000, 'ema_decay': 0.9999, 'ema_warmup': False},
            'optimizer': {'learning_rate': 2e-4, 'warmup_steps': 5000},
            'checkpoint': {'every': 10_000},
            'evaluation': {
                'samplers': ('ancestral:1000:variance=large', 'ddim:50:spacing=ddim_quad'),
                'vlb_variances': ('fixedlarge', 'beta'),
            },
        }
    )
