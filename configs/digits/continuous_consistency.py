"""Continuous-time consistency training (sCT) on digits, without a teacher.

genbench train --config=configs/digits/continuous_consistency.py --workdir=runs/continuous_consistency

This follows C. Lu, Y. Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2025, except as
noted below. The intermediate time of two steps is t = 1.1, where σ / α = 0.982.

With seed 0, `fd` is 9.94 at one evaluation and 9.79 at two, and `fd_train` 7.08 and 6.70. The eight sets of 180 samples
vary with a standard deviation of 0.7 to 1.1.

Differs from the paper: training starts from a fresh network instead of a trained diffusion model. The data set is
different, and the U-Net is small, without attention, adaptive double normalisation and dropout. The tangent grows in
over 100 updates instead of 10,000. The trajectory ends at 0, where f(x, 0) = x. Pixels have uniform noise in their
bins. The batch size is 128 instead of 512. The optimizer is Adam at 2e-3 instead of RAdam at 1e-4, and averaging and
its warm-up also differ.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {'name': 'continuous_consistency', 'tangent_warmup': 100},
            'network': {'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
            'evaluation': {
                'num_samples': 180,
                'sets': 8,
                'samplers': ('multistep_consistency:1', 'multistep_consistency:spacing=1.5645464/1.1'),
            },
        }
    )
