"""ADM on ImageNet 64×64 with labels (Dhariwal & Nichol 2021, table 11): 295.9M parameters with learned variances.

genbench train --config=configs/imagenet64/adm.py --workdir=runs/imagenet64_adm --config.data.data_dir=DIR

Prepare the images first: genbench data prepare imagenet2012 --size=64 --crop=adm.

The paper reports FID 2.07 with 250 ancestral steps, and 2.61 without dropout. The batch of 2,048 images is meant for
many accelerators; train.accumulate splits it on fewer. This has not been run here.

Differs from the paper: the cosine schedule ends at 0.995 instead of clipping β at 0.999. Layers start as EDM's. Pixels
are at the centres of their bins. The computation is in bfloat16 instead of float16. AdamW without decay is Adam.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (64,), 'crop': 'adm'},
            'family': {
                'name': 'diffusion',
                'prediction': 'noise',
                'learned_variance': 0.001,
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
                'num_steps': 540_000,
                'batch_size': 2048,
                'sample_every': 20_000,
                'ema_decay': 0.9999,
                'ema_warmup': False,
            },
            'optimizer': {'learning_rate': 3e-4, 'clip_norm': 0.0},
            'checkpoint': {'every': 2500},
            'evaluation': {'samplers': ('ancestral:250:variance=learned',), 'split': 'validation'},
        }
    )
