"""Non-saturating GAN with R1 on digits.

genbench train --config=configs/digits/gan.py --workdir=runs/gan

docs/studies/digits_families.md says what results to expect.

Differs from the paper: Mescheder et al. 2018 resample by average pooling and nearest neighbour without convolutions,
and narrow the middle of each block. They use RMSProp with 1e-4, γ = 10, 256 latents and batches of 64, and add no noise
to real images.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'gan'},
            'network': {'channels': 16},
            'train': {'num_steps': 600, 'sample_every': 120, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'linear'},
        }
    )
