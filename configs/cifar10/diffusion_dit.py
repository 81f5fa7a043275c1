"""DDPM's schedule and loss with the transformer DiT-S/2 on CIFAR-10 pixels, in bfloat16: 32.6M parameters, 256 tokens.

genbench train --config=configs/cifar10/diffusion_dit.py --workdir=runs/cifar10_diffusion_dit \
    --config.data.data_dir=DIR

Peebles & Xie 2023 train on latents of ImageNet. No number has been published for this model.

Differs from the paper: it models pixels of CIFAR-10, with uniform noise in their bins, and computes in bfloat16.
Predicted images are clipped during sampling, as DDPM does for pixels.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'diffusion',
                'conditional': True,
                'schedule': 'linear',
                'prediction': 'noise',
                'clip': True,
                'learned_variance': 0.001,
            },
            'network': {'name': 'dit', 'depth': 12, 'width': 384, 'heads': 6, 'dtype': 'bfloat16'},
            'train': {
                'num_steps': 400_000,
                'sample_every': 50_000,
                'batch_size': 256,
                'ema_decay': 0.9999,
                'ema_warmup': False,
            },
            'optimizer': {'learning_rate': 1e-4, 'clip_norm': 0.0},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('ancestral:250:guidance=1.5,variance=learned', 'ddim:50')},
        }
    )
