"""EDM2 on CIFAR-10 with labels (Karras et al. 2024, config G).

genbench train --config=configs/cifar10/edm2.py --workdir=runs/cifar10_edm2 --config.data.data_dir=DIR

The paper has no number for CIFAR-10: it trains on ImageNet. The noise levels, the rate and the width are those of the
official code's size XS for pixels of ImageNet-64, with three resolutions instead of four. This has not been run here.

Differs from the paper: the data set is different, and the batch size is 512 instead of 2048. The rate rises over 10M
images as in the paper and falls after 35,000 updates, which are 18M images here and 72M there. Training has 200M images
instead of 1,074M. u(σ) sees other features of the noise level and starts at zero. An update with a non-finite gradient
is left out; the paper replaces the non-finite parts. The official code averages weights before it forces their norm.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {
                'name': 'diffusion',
                'schedule': 'edm',
                'prediction': 'preconditioned',
                'weight': 'edm',
                'time_sampler': 'log_normal:mean=-0.8,deviation=1.6',
                'uncertainty': True,
                'conditional': True,
                'condition_dropout': 0.0,
                'dequantisation': 'none',
            },
            'network': {
                'name': 'edm2',
                'channels': 128,
                'multipliers': (1, 2, 3),
                'blocks': 3,
                'attention': (16, 8),
                'head_width': 64,
                'dtype': 'bfloat16',
            },
            'train': {
                'num_steps': 390_625,  # 200M images
                'batch_size': 512,
                'sample_every': 20_000,
                'power_widths': (0.05, 0.1),
            },
            'optimizer': {
                'learning_rate': 1.2e-2,
                'b2': 0.99,
                'schedule': 'inverse_sqrt',
                'warmup_steps': 19_531,
                'decay_start': 35_000,
                'clip_norm': 0.0,
            },
            'checkpoint': {'every': 5000},
            'evaluation': {'average': 'power_0.05', 'samplers': ('heun:32',), 'likelihoods': ('ode_1',)},
        }
    )
