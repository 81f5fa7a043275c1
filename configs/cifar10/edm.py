"""EDM on unconditional CIFAR-10 (Karras et al. 2022, config F, DDPM++): 55.7M parameters.

genbench train --config=configs/cifar10/edm.py --workdir=runs/cifar10_edm --config.data.data_dir=DIR

The paper reports FID 1.97 at 35 evaluations, as the minimum of three runs, and 1.79 with family.conditional=True. With
network.embedding=fourier, network.taps=1,3,3,1 and network.pyramid=True, the network is NCSN++ (56.4M parameters, FID
1.98). This has not been run here.

Differs from the paper: augmentation interpolates bilinearly and rounds to levels. The average has a decay of 0.99929,
which is a half-life of 0.5M images, without a ramp at the start. Layers that start near zero in the paper start at
zero. An update with a non-finite gradient is left out; the paper replaces the non-finite parts.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10'},
            'family': {
                'name': 'diffusion',
                'schedule': 'edm',
                'prediction': 'preconditioned',
                'weight': 'edm',
                'time_sampler': 'log_normal:mean=-1.2,deviation=1.2',
                'conditions': ('augmentation:12',),
                'condition_dropout': 0.0,
                'dequantisation': 'none',
            },
            'network': {
                'name': 'ncsnpp',
                'channels': 128,
                'multipliers': (2, 2, 2),
                'blocks': 4,
                'attention': (16,),
                'dropout': 0.13,
            },
            'train': {
                'num_steps': 390_625,  # 200M images
                'batch_size': 512,
                'sample_every': 20_000,
                'ema_decay': 0.99929,
                'ema_warmup': False,
            },
            'optimizer': {'warmup_steps': 19_531, 'clip_norm': 0.0},
            'checkpoint': {'every': 5000},
            'evaluation': {'samplers': ('heun:18',), 'likelihoods': ('ode_1',)},
        }
    )
