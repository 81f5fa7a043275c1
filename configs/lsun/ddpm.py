"""DDPM on LSUN bedrooms at 256×256 (Ho et al. 2020, appendix B): 113.7M parameters.

genbench train --config=configs/lsun/ddpm.py --workdir=runs/lsun_ddpm --config.data.data_dir=DIR

Prepare the images first: genbench data prepare lsun/bedroom --size=256.

The paper reports FID 6.36 with 1,000 ancestral steps, which is computed against the train split. Churches have
data.name=lsun/church_outdoor, data.flip=True and train.num_steps=1200000, FID 7.89. This has not been run here.

Differs from the paper: step n of 1,000 is embedded as n; the code counts from 0. Layers that start near zero there
start at zero. Pixels are at the centres of their bins.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'lsun/bedroom', 'size': (256,)},
            'family': {
                'name': 'diffusion',
                'schedule': 'linear',
                'prediction': 'noise',
                'dequantisation': 'none',
                'clip': True,
            },
            'network': {
                'channels': 128,
                'multipliers': (1, 1, 2, 2, 4, 4),
                'blocks': 2,
                'attention': (16,),
                'groups': 32,
            },
            'train': {
                'num_steps': 2_400_000,
                'batch_size': 64,
                'sample_every': 100_000,
                'ema_decay': 0.9999,
                'ema_warmup': False,
            },
            'optimizer': {'learning_rate': 2e-5, 'warmup_steps': 5000},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('ancestral:1000:variance=large',), 'metrics': ('fid',)},
        }
    )
