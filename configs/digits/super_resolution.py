"""A diffusion model that is trained to enlarge digits by two.

genbench train --config=configs/digits/super_resolution.py --workdir=runs/super_resolution

C. Saharia et al., Image Super-Resolution via Iterative Refinement, 2021 (SR3): the network sees x_t and, as further
channels, the small image at the size of the large one.

Differs from the paper: the small image is the mean over squares of 2×2 pixels, each repeated, and not enlarged by a
bicubic filter; the U-Net is small and has no attention; a cosine schedule and v instead of noise levels that the
network sees and ε; Adam with a cosine schedule at 2e-3.

Status: run for a few steps only.
"""

from typing import Any

from genbench import config


def get_config() -> dict[str, Any]:
    values = config.read_file('digits/palette')
    values['family']['conditions'] = ('degraded:pool2',)
    return values
