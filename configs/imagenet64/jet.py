"""Jet on ImageNet 64×64 with the settings of its official code: 207.2M parameters, and 2.2M numbers of permutations.

genbench train --config=configs/imagenet64/jet.py --workdir=runs/imagenet64_jet \
    --config.data.data_dir=DIR

The official code states 3.72 bits per dimension for these 32 couplings of depth 2, and 3.66 for 64 couplings of depth
5, the paper's number. We have not reproduced this yet.

The data set is that of van den Oord et al. 2016. The settings are those of the code: patches of 4×4 pixels, width 512,
8 heads, uniform noise, batches of 1,024 for 200 epochs, AdamW with β₂ = 0.95, a learning rate of 3e-4 with a cosine
after a tenth of the run as warm-up, and gradients clipped at norm 1. The code takes 1e-5 of every weight away in a step
at the peak of the learning rate; this is a weight decay of 1/30 in units of the learning rate.

Differs from the paper: TFDS stores the images as JPEG. The first moments of Adam are float32. genbench scores an
average of the parameters; set evaluation.average=current for the last ones. docs/deviations.md lists the other
differences.
"""

from ml_collections import ConfigDict

EPOCH = 1_281_149 // 1024


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'downsampled_imagenet/64x64', 'size': (64,)},
            'family': {'name': 'normalizing_flow'},
            'network': {
                'name': 'jet', 'patch': 4, 'couplings': 32, 'depth': 2, 'width': 512, 'heads': 8, 'remat': 'blocks',
            },
            'train': {'num_steps': 200 * EPOCH, 'batch_size': 1024, 'sample_every': 20 * EPOCH, 'ema_decay': 0.9999},
            'optimizer': {
                'name': 'adamw', 'learning_rate': 3e-4, 'b2': 0.95, 'weight_decay': 1 / 30,
                'schedule': 'cosine', 'warmup_steps': 20 * EPOCH,
            },
            'evaluation': {'split': 'validation', 'metrics': ('likelihood',)},
            'checkpoint': {'every': EPOCH},
        }
    )  # fmt: skip
