"""ADM: P. Dhariwal, A. Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, section 3.

The paper's model for ImageNet-64 has 192 channels times (1, 2, 3, 4), 3 blocks, and attention at 32, 16 and 8 pixels.

The initialisation is EDM's (Karras et al. 2022): that of PyTorch's layers, with zero at the end of a branch.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import layers, resampled
from genbench.networks.initialisers import kernel_as_pytorch, uniform
from genbench.ranges import COUNT

DEFAULTS = {**resampled.DEFAULTS, 'head_width': 32}  # channels per attention head; 64 in the paper
RANGES = {**resampled.RANGES, 'head_width': COUNT}
STYLE = resampled.Style(
    adaptive=True,
    project=False,
    scale=1.0,
    epsilon=1e-5,
    attend_up=True,
    wide_start=True,
    kernel_init=kernel_as_pytorch(),
    attention_init=kernel_as_pytorch(),
    bias_init=lambda inputs: uniform(1 / math.sqrt(inputs)),
)


def heads(head_width: int, width: int) -> int:
    """The number of attention heads of a block with this many channels; a UserError if they do not divide."""
    if width % head_width:
        raise UserError(f'network.head_width is {head_width}; it should divide {width}, the channels of an '
                        'attention block.')  # fmt: skip
    return width // head_width


class ADM(resampled.ResampledUNet):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; see `ResampledUNet`.

    Raises:
      UserError: the heads do not divide the channels of a block that attends.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *, channels: int, head_width: int,
        time_scale: float = 1000.0, second_time: bool = False, outputs: int = 1, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        if channels % 2:
            raise UserError(f'network.channels is {channels}; it should be even.')

        conditioning = layers.Conditioning(
            channels, 4 * channels, forms, endpoint=False, kernel_init=kernel_as_pytorch(), bias_init=STYLE.bias_init,
            class_init=resampled.silent_null(lambda n: nnx.initializers.normal(1.0)), early=('vector',),
            time_scale=time_scale, second_time=second_time, rngs=rngs,
        )  # fmt: skip
        super().__init__(
            size, image_channels, forms, conditioning, style=STYLE, channels=channels,
            heads=functools.partial(heads, head_width), taps=(1, 1), pyramid=False, outputs=outputs, rngs=rngs,
            **options,
        )  # fmt: skip
