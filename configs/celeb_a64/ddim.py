"""DDPM's model of faces at 64×64, for samplers of few steps (J. Song et al. 2021, DDIM, appendix D.1).

genbench train --config=configs/celeb_a64/ddim.py --workdir=runs/celeb_a64_ddim --config.data.data_dir=DIR

Prepare the images first: genbench data prepare celeb_a --size=64.

The paper reports, for 10, 20, 50, 100 and 1,000 steps of ddim, FID 17.33, 13.73, 9.17, 6.53 and 3.51. The settings are
those of the official code. This has not been run here.

Differs from the paper: it crops faces to 140 pixels around their middle before it reduces them; prepare such a crop for
its numbers. The code trains for at most 5,000,000 steps and does not say for how many it did; here it is 1,500,000.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('cifar10/diffusion')
    values['data'] = {'name': 'celeb_a', 'size': (64,), 'flip': True}
    values['network'] |= {'multipliers': (1, 2, 2, 2, 4)}
    values['train'] |= {'num_steps': 1_500_000, 'sample_every': 100_000}
    samplers = tuple(f'ddim:{steps}' for steps in (10, 20, 50, 100, 1000))
    values['evaluation'] = {'samplers': samplers, 'metrics': ('fid',)}
    return values
