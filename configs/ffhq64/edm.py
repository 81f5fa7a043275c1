"""EDM on FFHQ at 64×64 (Karras et al. 2022, config F, DDPM++): 61.8M parameters.

genbench train --config=configs/ffhq64/edm.py --workdir=runs/ffhq64_edm

Prepare the images first: genbench data prepare folder:ffhq64 --size=64.

The paper reports FID 2.39 at 79 evaluations, as the minimum of three runs. With network.embedding=fourier,
network.taps=1,3,3,1 and network.pyramid=True, the network is NCSN++ (FID 2.53). This has not been run here.

Differs from the paper: as cifar10/edm does. The average has a decay of 0.999645, which is a half-life of 0.5M images.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('cifar10/edm')
    values['data'] = {'name': 'folder:ffhq64', 'size': (64,)}
    values['family'] |= {'conditions': ('augmentation:15',)}
    values['network'] |= {'multipliers': (1, 2, 2, 2), 'dropout': 0.05}
    values['train'] |= {'num_steps': 781_250, 'batch_size': 256, 'ema_decay': 0.5 ** (256 / 500_000)}  # 200M images
    values['optimizer'] |= {'learning_rate': 2e-4, 'warmup_steps': 39_062}
    values['evaluation'] = {'samplers': ('heun:40',), 'metrics': ('fid',)}
    return values
