"""Two-dimensional flows of Tong et al. 2024, table 2: OT-CFM, here from normal noise to eight normals.

genbench train --config=configs/paper/otcfm_plane.py --workdir=runs/otcfm

I-CFM: --config.family.coupling=independent --config.train.batch_size=512. FM: these and --config.family.path_noise=0
--config.family.data_noise=0.1. Other sets: --config.data.name=otcfm_moons or otcfm_s_curve, both with
--config.family.scale=4. From moons to eight normals: --config.data.name=otcfm_far_normals --config.family.scale=24
--config.family.source=otcfm_far_moons.

As in the authors' code: a perceptron of 3 layers of 64 SELU units whose input is (x, t), σ = 0.1, AdamW at 1e-3 with a
weight decay of 1e-5, 10,000 training points, 20,000 updates (1,000 epochs of 512), and 100 Euler steps from new starts,
which are compared with 1,000 test points, or with 512 from moons to normals.

Differs from the paper: OT-CFM has batches of 128 points, for the assignment of 512 takes thirty times as long, and the
paper is said to find 64 enough. The ledger's rows of OT-CFM stop after 10,000 updates (--config.train.num_steps=10000),
which were 20,000 before their cost was known, and those of I-CFM have batches of 256. From moons to normals the authors
make 19,000 updates. They draw pairs from the plan with replacement; here the pairs are a permutation. They start from
10,000 fixed moons, here from 32,768. Their moons, S-curve and test points are the same for all seeds. The last state is
evaluated, not that with the least validation loss. Weights start as in Glorot & Bengio 2010, biases at zero, where
PyTorch's Linear draws both. Data are kept in 4,096 levels a coordinate, and training sees them anywhere within their
level.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            'data': {'name': 'otcfm_normals'},
            'family': {'name': 'flow_matching', 'coupling': 'optimal_transport', 'path_noise': 0.1, 'scale': 10.0},
            'network': {'name': 'mlp', 'hidden': (64, 64, 64), 'activation': 'selu', 'time': 'input'},
            'train': {'num_steps': 20_000, 'log_every': 1000, 'steps_per_call': 200},
            'optimizer': {'name': 'adamw', 'weight_decay': 1e-5, 'clip_norm': 0.0},
            'checkpoint': {'every': 5000},
            'evaluation': {
                'average': 'current',
                'metrics': ('w2', 'path_energy', 'speed'),
                'samplers': ('euler:100',),
                'sets': 1,
            },
        }
    )
