"""A residual flow of digits: two scales of four residual blocks, and two dense blocks.

genbench train --config=configs/digits/residual_flow.py --workdir=runs/residual_flow

One run (seed 0) reached at most 2.193 ± 0.012 bits per dimension with K = 1, by Jacobians and in a script of our own,
and an FD of 11.9 ± 1.3 (standard deviation over eight sets). It was made before the power method mixed a fixed vector
into its start.

Differs from the paper: the network is small and the run is short. Images of digits have 64 values, so evaluation
computes the determinants of all Jacobians; `--config.network.exact_dims=0` estimates them as for larger images.
docs/deviations.md lists the other differences.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'digits'},
            'evaluation': {'num_samples': 180, 'sets': 8},
            'family': {'name': 'normalizing_flow'},
            'network': {'name': 'residual_flow'},
            'train': {'num_steps': 800, 'batch_size': 64, 'sample_every': 200, 'ema_decay': 0.99},
            'optimizer': {'learning_rate': 2e-3, 'schedule': 'cosine', 'warmup_steps': 50},
        }
    )
