"""Consistency trajectory model (CTM) of the digits diffusion run.

genbench train --config=configs/digits/consistency_trajectory.py --workdir=runs/consistency_trajectory

Train the teacher first: configs/digits/diffusion.py.

This follows D. Kim et al., Consistency Trajectory Models: Learning Probability Flow ODE Trajectory of Diffusion, 2024,
except as noted below. One run, seed 0: FD 17.0 ± 0.7 with one evaluation, 5.6 ± 0.3 with two and 5.4 ± 0.3 with four.

Differs from the paper: the path and the times are the teacher's, here cosine and even in t, and not EDM's with ρ = 7.
There is no discriminator. The distance is pseudo-Huber, not LPIPS, and the weight of denoising is constant. The teacher
takes at most 4 steps of its solver instead of 17. The target has decay 0.95, not 0.999. The optimizer is Adam at 1e-3
with clipping at 1 instead of RAdam at 4e-4. The run has 250 updates. Pixels have uniform noise in their bins. Networks
are small, and the data set is different.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'consistency_trajectory',
                'teacher': 'runs/diffusion',
                'solver_steps': 4,
                'target_decay': 0.95,
            },
            'train': {'num_steps': 250, 'sample_every': 50, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine'},
            'evaluation': {'num_samples': 180, 'sets': 8, 'samplers': ('flow_map:1', 'flow_map:2', 'flow_map:4')},
        }
    )
