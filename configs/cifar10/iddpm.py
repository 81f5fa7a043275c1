"""Improved DDPM on CIFAR-10 (Nichol & Dhariwal 2021): 52.5M parameters, 4,000 cosine steps, learned variances.

genbench train --config=configs/cifar10/iddpm.py --workdir=runs/cifar10_iddpm --config.data.data_dir=DIR

For L_hybrid, which this config has, the paper reports FID 3.19 and a bound of 3.17 bits per dimension. For L_vlb with
steps drawn by importance, set family.weight=vlb, family.learned_variance=1 and family.time_sampler=importance (FID
11.47 and 2.94 bits per dimension). For L_simple, set family.learned_variance=0 and evaluation.samplers=ancestral:4000
(FID 2.90). This has not been run here.

Differs from the paper: the cosine schedule ends at 0.995 instead of clipping β at 0.999. Layers that start near zero
there start at zero. Pixels are at the centres of their bins.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('cifar10/diffusion')
    values['data'] = {'name': 'cifar10'}
    values['family'] |= {'num_timesteps': 4000, 'learned_variance': 0.001}
    del values['family']['schedule']
    values['network'] |= {'blocks': 3, 'attention': (16, 8), 'heads': 4, 'dropout': 0.3, 'scale_shift': True}
    values['train'] |= {'num_steps': 500_000}
    values['optimizer'] = {'learning_rate': 1e-4, 'clip_norm': 0.0}
    values['evaluation'] = {'samplers': ('ancestral:4000:variance=learned',), 'vlb_variances': ('learned',)}
    return values
