"""EDM2 on digits: the magnitude-preserving U-Net and its training (Karras et al. 2024, config G), at a small size.

genbench train --config=configs/digits/edm2.py --workdir=runs/edm2

One run, seed 0: FD 6.8 ± 0.3 with 19 evaluations of `heun` and 6.6 ± 0.3 with 49. Each ± is a standard error over the
sets of samples.

Differs from the paper: pixels replace latents, there are no classes, the noise levels are those of the official code
for pixels of ImageNet-64, and the U-Net is small. The batch size is 128 instead of 2048, the rate rises over 6,400
images instead of 10M, and it falls after 25,600 images instead of 72M. Pixels have uniform noise in their bins.
u(σ) sees other features of the noise level and starts at zero. Sampling uses the power-function average of width 0.1.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'family': {
                'name': 'diffusion',
                'schedule': 'edm',
                'prediction': 'preconditioned',
                'weight': 'edm',
                'time_sampler': 'log_normal:mean=-0.8,deviation=1.6',
                'uncertainty': True,
            },
            'network': {'name': 'edm2', 'multipliers': (1, 1)},
            'train': {'num_steps': 500, 'sample_every': 100, 'ema_decay': 0.99, 'power_widths': (0.1,)},
            'optimizer': {
                'learning_rate': 1e-2,
                'b2': 0.99,
                'schedule': 'inverse_sqrt',
                'warmup_steps': 50,
                'decay_start': 200,
                'clip_norm': 0.0,
            },
            'evaluation': {'num_samples': 180, 'sets': 8, 'average': 'power_0.1', 'samplers': ('heun:10', 'heun:25')},
        }
    )
