"""Distribution matching distillation (DMD2) of the digits diffusion run.

genbench train --config=configs/digits/distribution_matching.py --workdir=runs/distribution_matching

Train the teacher first: configs/digits/diffusion.py.

This follows T. Yin et al., Improved Distribution Matching Distillation for Fast Image Synthesis, 2024, except as noted
below. One run, seed 0: FD 6.1 ± 0.4 with one evaluation.

Differs from the paper: the path is the teacher's, here cosine and not EDM's. There is no discriminator. The denoiser of
the student's images is trained with the teacher's loss, at the teacher's times. The optimizer is Adam at 5e-4 with
clipping at 1 instead of AdamW at 2e-6. The run has 600 updates, 120 of which also move the student. Pixels have uniform
noise in their bins. Networks are small, and the data set is different.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'distribution_matching', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 600, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-4},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('multistep_consistency:1',)},
        }
    )
