"""Consistency distillation of the digits diffusion run.

genbench train --config=configs/digits/consistency.py --workdir=runs/consistency

Train the teacher first: configs/digits/diffusion.py. docs/studies/digits_families.md has what to expect.

Differs from the paper: path and times are the teacher's, here cosine and even in t, not EDM's with ρ = 7; the
trajectory ends at 0, where f(x, 0) = x, not at 0.002 with c_skip and c_out; the distance is pseudo-Huber, of a later
paper, not LPIPS; the target network has decay 0.95, where the paper has 0 on CIFAR-10; batch 128, not 512; Adam at 1e-3
with clipping at 1, not RAdam at 4e-4 without, by choice; small networks and another data set. docs/deviations.md has
the reasons.
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
