"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency

Train the teacher first: configs/digits/diffusion.py. docs/studies/digits_families.md says what results to expect.

Differs from the paper: path and times are the teacher's, here cosine and even in t, and not EDM's with ρ = 7. The
trajectory ends at 0, where f(x, 0) = x, and not at 0.002 with c_skip and c_out. The distance is the pseudo-Huber
distance of a later paper, not LPIPS. The target network has decay 0.95, where the paper uses 0 on CIFAR-10. The batch
size is 128, not 512. The optimizer is, by choice, Adam at 1e-3 with clipping at 1, not RAdam at 4e-4 without clipping.
Networks are small, and the data set is different. docs/deviations.md gives the reasons.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'consistency', 'teacher': 'runs/diffusion'},
            'train': {'num_steps': 250, 'sample_every': 50, 'ema_decay': 0.99},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4'),
            },
        }
    )
