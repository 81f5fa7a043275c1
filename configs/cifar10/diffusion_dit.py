"""DDPM's loss with the transformer DiT-S/2 on CIFAR-10 pixels, in bfloat16: 32.6M parameters, 256 tokens.

genbench train --config=configs/cifar10/diffusion_dit.py --workdir=runs/cifar10_diffusion_dit \
    --config.data.data_dir=DIR

Peebles & Xie 2023 train on latents of ImageNet; there is no published number for this one.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'diffusion', 'conditional': True},
            'network': {'name': 'dit', 'depth': 12, 'width': 384, 'heads': 6, 'dtype': 'bfloat16'},
            'train': {'num_steps': 400_000, 'sample_every': 50_000, 'batch_size': 256, 'ema_decay': 0.9999},
            'optimizer': {'learning_rate': 1e-4},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('ddim:50:1.5', 'ddim:50')},
        }
    )
