"""Easy consistency tuning (ECT) of the digits diffusion run.

genbench train --config=configs/digits/consistency_tuning.py --workdir=runs/consistency_tuning

Train the teacher first: configs/digits/diffusion.py.

This follows Z. Geng et al., Consistency Models Made Easy, 2024, except as noted below. One run, seed 0:
FD 7.6 ± 0.4 with one evaluation, 6.8 ± 0.4 with two and 6.5 ± 0.3 with four. Each ± is a standard error over
the sets of samples.

Differs from the paper: the path is the teacher's, here cosine and not EDM's. The data set is different, and the U-Net
is small, without attention and dropout. Steps shrink by 2 in 5 parts of the run instead of 8. The distance is
pseudo-Huber; the official code has the Euclidean distance on CIFAR-10. Pixels have uniform noise in their bins. The
optimizer is Adam at 1e-3 with clipping at 1 instead of RAdam at 1e-4 without clipping, and averaging and its warm-up
also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'consistency_tuning', 'teacher': 'runs/diffusion', 'tuning_stages': 5},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'schedule': 'cosine'},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4'),
            },
        }
    )
