"""EDM on ImageNet 64×64 with labels (Karras et al. 2022, table 4): ADM's network, 295.9M parameters.

genbench train --config=configs/imagenet64/edm.py --workdir=runs/imagenet64_edm --config.data.data_dir=DIR

Prepare the images first: genbench data prepare imagenet2012 --size=64 --crop=adm.

The paper reports FID 1.36 at 511 evaluations of its stochastic sampler. The batch of 4,096 images is meant for 32
accelerators; train.accumulate splits it on fewer. This has not been run here.

Differs from the paper: the average has a decay of 0.99994, which is a half-life of 50M images, without a ramp at the
start. The computation is in bfloat16 instead of float16. An update with a non-finite gradient is left out; the paper
replaces the non-finite parts.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (64,), 'crop': 'adm'},
            'family': {
                'name': 'diffusion',
                'schedule': 'edm',
                'prediction': 'preconditioned',
                'weight': 'edm',
                'time_sampler': 'log_normal:mean=-1.2,deviation=1.2',
                'conditional': True,
                'condition_dropout': 0.0,
                'dequantisation': 'none',
            },
            'network': {
                'name': 'adm',
                'channels': 192,
                'multipliers': (1, 2, 3, 4),
                'blocks': 3,
                'attention': (32, 16, 8),
                'head_width': 64,
                'dropout': 0.1,
                'dtype': 'bfloat16',
            },
            'train': {
                'num_steps': 610_352,  # 2,500M images
                'batch_size': 4096,
                'sample_every': 20_000,
                'ema_decay': 0.99994322,
                'ema_warmup': False,
            },
            'optimizer': {'learning_rate': 1e-4, 'warmup_steps': 2441, 'clip_norm': 0.0},
            'checkpoint': {'every': 2500},
            'evaluation': {
                'samplers': ('heun:256:churn=40,s_noise=1.003,s_tmin=0.05,s_tmax=50', 'heun:40'),
                'split': 'validation',
            },
        }
    )
