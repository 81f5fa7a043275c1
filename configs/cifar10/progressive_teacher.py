"""The teacher of progressive distillation on CIFAR-10 (Salimans & Ho 2022): x prediction with the truncated SNR.

genbench train --config=configs/cifar10/progressive_teacher.py --workdir=runs/cifar10_progressive_teacher \
    --config.data.data_dir=DIR

configs/cifar10/progressive_distillation.py distils it. The settings are those of the official config; the number of
updates, which it leaves open, is from memory. This has not been run here.

Differs from the paper: time ends at 0.995 of the cosine schedule, log SNR −9.7 instead of −20. Times are spread evenly
over each batch. Layers start as PyTorch's and not as Flax's. Pixels are at the centres of their bins.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'diffusion',
                'prediction': 'x',
                'weight': 'truncated_snr',
                'time_sampler': 'low_discrepancy',
                'dequantisation': 'none',
                'clip': True,
            },
            'network': {
                'name': 'adm',
                'channels': 256,
                'multipliers': (1, 1, 1),
                'blocks': 3,
                'attention': (16, 8),
                'head_width': 256,
                'dropout': 0.2,
            },
            'train': {'num_steps': 800_000, 'sample_every': 100_000, 'ema_decay': 0.9999, 'ema_warmup': False},
            'optimizer': {'name': 'adamw', 'weight_decay': 0.001, 'learning_rate': 2e-4, 'warmup_steps': 1000},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('ddim:1024',)},
        }
    )
