"""Perception-prioritised (P2) training of a small ADM on FFHQ at 256×256 (Choi et al. 2022): 93.6M parameters.

genbench train --config=configs/ffhq256/p2.py --workdir=runs/ffhq256_p2

Prepare the images first: genbench data prepare folder:ffhq256 --size=256.

The settings are those of the official code (jychoi118/P2-weighting), whose checkpoint for FFHQ has seen 16M images. The
paper also uses family.weight=p2:k=1,gamma=0.5. Its FID is not in the ledger. This has not been run here.

Differs from the paper: the weight multiplies the squared error of the noise and not the loss of the variance. Layers
start as EDM's. Pixels are at the centres of their bins. The computation is in bfloat16 instead of float32.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('lsun/adm')
    values['data'] = {'name': 'folder:ffhq256', 'size': (256,)}
    values['family'] |= {'weight': 'p2'}
    values['network'] |= {'channels': 128, 'attention': (16,)}
    del values['network']['blocks'], values['network']['dropout']
    values['train'] |= {'num_steps': 2_000_000, 'batch_size': 8, 'sample_every': 100_000}
    values['optimizer'] |= {'learning_rate': 2e-5}
    values['checkpoint'] = {'every': 10_000}
    values['evaluation'] = {'samplers': ('ancestral:1000:variance=learned',), 'metrics': ('fid',)}
    return values
