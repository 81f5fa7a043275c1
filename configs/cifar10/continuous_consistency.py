"""Continuous-time consistency training (sCT) on CIFAR-10 from a diffusion model (Lu & Song 2025): 55.7M parameters.

genbench train --config=configs/cifar10/continuous_consistency.py --workdir=runs/cifar10_continuous_consistency \
    --config.data.data_dir=DIR

Train the diffusion model first: configs/cifar10/trigflow.py. The paper reports FID 2.85 at one evaluation and 2.06 at
two. With family.distil=True and network.dropout=0 it is sCD, which distils that model (FID 3.66 and 2.52). The number
of updates, the average and sCD's dropout are from memory, and RAdam's β₂ of 0.999 is a guess. This has not been run
here.

Differs from the paper: the diffusion model is a run of genbench. Images are flipped, without further augmentation.
There is no adaptive double normalisation. The trajectory ends at 0, where f(x, 0) = x. Pixels are at the centres of
their bins.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    edm = config.read_file('cifar10/edm')
    return {
        'data': {'name': 'cifar10', 'flip': True},
        'family': {
            'name': 'continuous_consistency', 'teacher': 'runs/cifar10_trigflow', 'dequantisation': 'none',
        },
        'network': {**edm['network'], 'dropout': 0.2},
        'train': {
            'num_steps': 400_000, 'batch_size': 512, 'sample_every': 20_000, 'ema_decay': 0.9999, 'ema_warmup': False,
        },
        'optimizer': {'name': 'radam', 'learning_rate': 1e-4, 'clip_norm': 0.0},
        'checkpoint': {'every': 5000},
        'evaluation': {'samplers': ('multistep_consistency:1', 'multistep_consistency:spacing=1.5645464/1.1')},
    }  # fmt: skip
