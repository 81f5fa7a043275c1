"""Diffusion on digits with labels and a classifier of noisy images, for classifier guidance.

genbench train --config=configs/digits/classifier_guidance.py --workdir=runs/classifier_guidance

This follows P. Dhariwal, A. Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, except as noted below. With
seed 0 and 20 steps of ddim, FD is 6.1 ± 0.4 and recall 0.84 without guidance, 6.3 ± 0.4 and 0.67 with the weight 0.5 of
the classifier, and 7.8 ± 0.3 and 0.41 with the weight 1 of classifier-free guidance.

Differs from the paper: the classifier is trained in the same run, at the same times and rate. It is half of a U-Net
without attention, and pools by the mean. Schedule, prediction and solver are those of configs/digits/diffusion.py. A
tenth of the labels is dropped, for comparison with classifier-free guidance. Networks are small, and the data set is
different.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'diffusion', 'conditional': True, 'classifier': True},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('ddim:20', 'ddim:20:guidance=1', 'ddim:20:guidance=0.5,by=classifier'),
            },
        }
    )
