"""Consistency distillation of the MNIST diffusion run.

genbench train --config=configs/mnist/consistency.py --workdir=runs/mnist_consistency \
    --config.data.data_dir=DIR

Train the teacher first: configs/mnist/diffusion.py. experiments/mnist_families.py compares it with others.

Differs from the paper: path and times are the teacher's, here cosine and even in t, and not EDM's with ρ = 7. The
trajectory ends at 0, where f(x, 0) = x, and not at 0.002 with c_skip and c_out. The distance is the pseudo-Huber
distance of a later paper, not LPIPS. The target network has decay 0.95, where the paper uses 0 on CIFAR-10. The batch
size is 32, not 512. The optimizer is Adam at 1e-3 with clipping at 1, not RAdam at 4e-4 without clipping. Networks are
small, and the data set is different. docs/deviations.md gives the reasons.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'mnist'},
            'family': {'name': 'consistency', 'teacher': 'runs/mnist_diffusion'},
            'train': {'num_steps': 1200, 'batch_size': 32, 'sample_every': 300, 'ema_decay': 0.995},
            'evaluation': {
                'samplers': ('multistep_consistency:1', 'multistep_consistency:2', 'multistep_consistency:4')
            },
        }
    )
