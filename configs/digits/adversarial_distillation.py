"""Adversarial diffusion distillation (ADD) of the digits diffusion run.

genbench train --config=configs/digits/adversarial_distillation.py --workdir=runs/adversarial_distillation

Train the teacher first: configs/digits/diffusion.py.

This follows A. Sauer et al., Adversarial Diffusion Distillation, 2023, except as noted below. RESULT

Differs from the paper: the discriminator sees features of the teacher and not of DINOv2, as in A. Sauer et al., Fast
High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation, 2024. It sees less noise than there, and
γ is 1e-3 instead of 1e-5. λ is 1 instead of 2.5, of a mean over pixels. The schedule is the teacher's, here cosine.
Networks are small, and the data set is different.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'adversarial_distillation', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 600, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 5e-4},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': tuple(f'multistep_consistency:{steps}' for steps in (1, 2, 4)),
            },
        }
    )
