"""Variational diffusion model on CIFAR-10 without augmentation (Kingma et al. 2021, appendix B): 30.6M parameters.

genbench train --config=configs/cifar10/vdm.py --workdir=runs/cifar10_vdm --config.data.data_dir=DIR

The repository reports 2.637 bits/dim for its checkpoint, and 2.64 for the paper, with `vlb_continuous`. This has not
been run here.

Differs from the paper: log SNR falls from 13.3 to −10 instead of −5. The network of γ is genbench's monotone network.
Each image has its own offset of low-discrepancy times instead of one for the batch. Layers start as those of DDPM
instead of from normals of deviation 0.02 and lecun_normal. A block's projection of the time has a bias. Weight decay
also shrinks biases, which the code leaves out.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {
                'name': 'diffusion',
                'schedule': 'learned',
                'prediction': 'noise',
                'weight': 'elbo',
                'time_sampler': 'low_discrepancy',
                'dequantisation': 'none',
            },
            'network': {'name': 'vdm', 'channels': 128, 'blocks': 32, 'groups': 32, 'dropout': 0.1},
            'train': {'num_steps': 10_000_000, 'sample_every': 500_000, 'ema_decay': 0.9999, 'ema_warmup': False},
            'optimizer': {
                'name': 'adamw',
                'learning_rate': 2e-4,
                'b2': 0.99,
                'weight_decay': 0.01,
                'warmup_steps': 100,
                'clip_norm': 0.0,
            },
            'checkpoint': {'every': 20_000},
            'evaluation': {'samplers': ('ancestral:1000',), 'likelihoods': ('vlb_continuous',)},
        }
    )
