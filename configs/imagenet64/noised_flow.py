"""TarFlow on ImageNet 64×64 with noise augmentation, without classes, with the settings of its official code.

genbench train --config=configs/imagenet64/noised_flow.py --workdir=runs/imagenet64_noised_flow \
    --config.data.data_dir=DIR

The network and the optimizer are those of configs/imagenet64/tarflow.py. Noise of 0.05, bfloat16 and 200 epochs are
those of the official code. No published number is for exactly this model, and it has not been run here.

Differs from the paper: pixels are at the centres of their bins, which are up to 1 / 256 from the paper's levels.
The paper guides unconditional models by the temperature of attention, which genbench does not have.
docs/deviations.md lists the other differences.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('imagenet64/tarflow')
    values['family'] = {'name': 'noised_flow'}
    values['network']['dtype'] = 'bfloat16'
    values['train']['num_steps'] = 2 * values['train']['num_steps']
    values['evaluation'] = {'split': 'validation'}
    return values
