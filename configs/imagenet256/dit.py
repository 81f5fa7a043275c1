"""DiT-XL/2 on the latents of ImageNet 256×256 with labels (Peebles & Xie 2023): 674.8M parameters, 256 tokens.

genbench train --config=configs/imagenet256/dit.py --workdir=runs/imagenet256_dit --config.data.data_dir=DIR

Prepare the images (genbench data prepare imagenet2012 --size=256 --crop=adm) and train the first stage before:
configs/imagenet256/first_stage.py.

The paper reports FID 9.62 after 7M updates with 250 ancestral steps, 3.22 with a guidance of 1.25 and 2.27 with 1.5,
which are 0.25 and 0.5 here; after 400,000 updates it is 19.5 without guidance. Its count of 675.1M parameters includes
the fixed positions. DiT-B/2 has network.depth=12, network.width=768 and network.heads=12. This has not been run here.

Differs from the paper: the first stage is a run of genbench and not the autoencoder of Stable Diffusion, so numbers
cannot be the paper's. Each channel of the latents is scaled by its mean and deviation over the first batch, instead of
all by 0.18215. Guidance acts on all four channels; the code guides three. Pixels have uniform noise in their bins
before they are encoded. The computation is in bfloat16.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'imagenet2012', 'size': (256,), 'crop': 'adm', 'flip': True},
            'family': {
                'name': 'diffusion',
                'first_stage': 'runs/imagenet256_first_stage',
                'conditional': True,
                'schedule': 'linear',
                'prediction': 'noise',
                'learned_variance': 0.001,
            },
            'network': {'name': 'dit', 'depth': 28, 'width': 1152, 'heads': 16, 'dtype': 'bfloat16'},
            'train': {
                'num_steps': 7_000_000,
                'batch_size': 256,
                'sample_every': 100_000,
                'ema_decay': 0.9999,
                'ema_warmup': False,
            },
            'optimizer': {'learning_rate': 1e-4, 'clip_norm': 0.0},
            'checkpoint': {'every': 10_000},
            'evaluation': {
                'samplers': ('ancestral:250:variance=learned', 'ancestral:250:guidance=0.5,variance=learned'),
                'metrics': ('fid',),
                'split': 'validation',
            },
        }
    )
