"""The network of variational diffusion models: D. P. Kingma, T. Salimans, B. Poole, J. Ho, 2021, appendix B.

It is a U-Net that never changes the resolution, with a constant number of channels and attention only in the middle. It
also sees sines and cosines of the pixels, with which it can tell neighbouring levels of a pixel apart (appendix C), and
its input is added to its output, which suits the prediction of noise. On CIFAR-10 the paper uses 32 blocks on each side
and 128 channels; with augmentation, 256 channels.

Parameters are those of the official code, and in addition a bias where a block adds the time. That code also passes a
condition that is always zero.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import unet
from genbench.ranges import Range, each

_KEPT = ('channels', 'blocks', 'heads', 'groups', 'dropout', 'time_scale', 'dtype', 'remat')
DEFAULTS = {
    **{key: unet.DEFAULTS[key] for key in _KEPT},
    'fourier': (7, 8),  # n of the features sin(2^n π x) and cos(2^n π x); (): none
}
RANGES = {**{key: unet.RANGES[key] for key in _KEPT if key in unet.RANGES}, 'fourier': each(Range(0, 16), int)}


class VDM(unet.UNet):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; see `UNet`."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *, fourier: tuple[int, ...], rngs: nnx.Rngs,
        **options: Any,
    ):  # fmt: skip
        self.fourier = tuple(fourier)
        super().__init__(
            size, image_channels, forms, multipliers=(1,), attention=(), attend_middle=True,
            features=2 * len(fourier) * image_channels, rngs=rngs, **options,
        )  # fmt: skip

    def __call__(
        self, x: jax.Array, t: jax.Array, given: Given = None, key: jax.Array | None = None,
        s: jax.Array | None = None, residuals: Any = (),
    ) -> jax.Array:  # fmt: skip
        angles = [2.0**n * math.pi * x for n in self.fourier]
        seen = jnp.concatenate([x, *map(jnp.sin, angles), *map(jnp.cos, angles)], axis=-1)
        y = super().__call__(seen, t, given, key, s, residuals)
        return y.at[..., : x.shape[-1]].add(x)
