"""TarFlow on ImageNet 64×64 for densities, with the settings of its paper and official code: 460.1M parameters.

genbench train --config=configs/imagenet64/tarflow.py --workdir=runs/imagenet64_tarflow \
    --config.data.data_dir=DIR

Zhai et al. 2024 report 2.99 bits per dimension. We have not reproduced this yet.

The data set is that of van den Oord et al. 2016, to which the official code points. The settings are those of
that code: patches of 2×2 pixels, 8 flows of 8 layers and 768 channels, uniform noise, batches of 256 for 100 epochs,
mirrored images, AdamW with β₂ = 0.95, a weight decay of 1e-4, and a cosine to 1e-4 after one epoch of warm-up.

Differs from the paper: TFDS stores the images as JPEG, which changes their bits per dimension; the published number is
of the original PNG. The learning rate falls to 0 instead of 1e-6. genbench scores an average of the parameters; set
evaluation.average=current for the last ones. docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict

EPOCH = 1_281_149 // 256


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'downsampled_imagenet/64x64', 'size': (64,), 'flip': True},
            'family': {'name': 'normalizing_flow'},
            'network': {
                'name': 'tarflow', 'blocks': 8, 'depth': 8, 'width': 768, 'heads': 12, 'remat': 'blocks',
            },
            'train': {'num_steps': 100 * EPOCH, 'batch_size': 256, 'sample_every': 10 * EPOCH, 'ema_decay': 0.9999},
            'optimizer': {
                'name': 'adamw', 'learning_rate': 1e-4, 'b2': 0.95, 'weight_decay': 1e-4, 'clip_norm': 0.0,
                'schedule': 'cosine', 'warmup_steps': EPOCH,
            },
            'evaluation': {'split': 'validation', 'metrics': ('likelihood',)},
            'checkpoint': {'every': EPOCH},
        }
    )  # fmt: skip
