"""Consistency distillation of EDM on CIFAR-10 (Song et al. 2023): batch 512, 800,000 steps, RAdam at 4e-4.

genbench train --config=configs/cifar10/consistency.py --workdir=runs/cifar10_consistency \
    --config.data.data_dir=DIR

Train the teacher first: configs/cifar10/edm.py, with network.embedding=fourier, network.taps=1,3,3,1 and
network.pyramid=True for the paper's network of 56.4M parameters. The paper reports FID 3.55 with one evaluation and
2.93 with two. This has not been run here.

Differs from the paper: the trajectory ends at 0, where f(x, 0) = x, not at 0.002. The distance is the pseudo-Huber
distance of a later paper, not LPIPS. The network is the teacher's, with its dropout. docs/deviations.md gives the
reasons.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'cifar10', 'flip': True},
            'family': {'name': 'consistency', 'teacher': 'runs/cifar10_edm', 'target_decay': 0.0},
            'train': {
                'num_steps': 800_000,
                'batch_size': 512,
                'sample_every': 100_000,
                'ema_decay': 0.9999,
                'ema_warmup': False,
            },
            'optimizer': {'name': 'radam', 'learning_rate': 4e-4, 'clip_norm': 0.0},
            'checkpoint': {'every': 10_000},
            'evaluation': {'samplers': ('multistep_consistency:1', 'multistep_consistency:2')},
        }
    )
