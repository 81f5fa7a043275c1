"""TrigFlow diffusion on CIFAR-10 with DDPM++ (Lu & Song 2025), from which sCM starts: 55.7M parameters.

genbench train --config=configs/cifar10/trigflow.py --workdir=runs/cifar10_trigflow --config.data.data_dir=DIR

configs/cifar10/continuous_consistency.py builds on it. The path and the prediction are the paper's. The other settings
are EDM's; that the paper takes them, that it learns the weight over time, and its distribution of times are from
memory. This has not been run here.

Differs from the paper: images are flipped, without further augmentation. The average has a constant decay. There is no
adaptive double normalisation. Layers that start near zero in the paper start at zero. Pixels are at the centres of
their bins.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    edm = config.read_file('cifar10/edm')
    return {
        **edm,
        'data': {'name': 'cifar10', 'flip': True},
        'family': {
            'name': 'diffusion', 'schedule': 'trig', 'prediction': 'preconditioned', 'uncertainty': True,
            'time_sampler': 'log_normal:mean=-1,deviation=1.4', 'dequantisation': 'none',
        },
        'network': {**edm['network'], 'time_scale': 1.0},
        'evaluation': {'samplers': ('heun:18:spacing=rho7',), 'likelihoods': ('ode_1',)},
    }  # fmt: skip
