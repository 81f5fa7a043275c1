"""NCSN++ and DDPM++: Y. Song et al. 2021, Score-Based Generative Modeling through SDEs, appendix H.

DDPM++ repeats and averages pixels to change the resolution, and embeds time by sinusoids. NCSN++ has a longer filter
(`taps` 1, 3, 3, 1) and random Fourier features of the log noise level, and feeds the images in again at each lower
resolution (`pyramid`). On CIFAR-10 that paper uses 128 channels times (1, 2, 2, 2), 4 blocks and attention at 16
pixels; EDM (Karras et al. 2022, table 1) uses (2, 2, 2).

The initialisation is that of the official code, except that layers that start near zero there start at zero here. As
in EDM, classes and vectors are added to the sinusoids of time; score SDE has no conditions.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import layers, resampled
from genbench.ranges import COUNT, Range, each

FOURIER_SCALE = 16.0  # standard deviation of the frequencies
DEFAULTS = {
    **resampled.DEFAULTS,
    'heads': 1,
    'embedding': 'positional',  # embedding of time; NCSN++: 'fourier'
    'taps': (1, 1),  # filter for changes of the resolution; NCSN++: (1, 3, 3, 1)
    'pyramid': False,  # also feed the image to each lower resolution; NCSN++: True
}
RANGES = {
    **resampled.RANGES,
    'heads': COUNT,
    'embedding': Range(names=('positional', 'fourier')),
    'taps': each(COUNT, int, fewest=2),
}

STYLE = resampled.Style(
    adaptive=False,
    project=True,
    scale=math.sqrt(0.5),
    epsilon=1e-6,
    attend_up=False,
    wide_start=False,
    kernel_init=layers.fan_average,
    attention_init=nnx.initializers.variance_scaling(0.1, 'fan_in', 'uniform'),
    bias_init=lambda inputs: layers.zeros,
)


class Frozen(nnx.Variable):
    """A variable that is drawn once and never trained."""


class Fourier(nnx.Module):
    """Numbers (batch,) → sines, then cosines, at random frequencies (batch, size) (Tancik et al. 2020)."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.frequencies = Frozen(FOURIER_SCALE * jax.random.normal(rngs.params(), (size // 2,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        angles = x[:, None] * (2 * math.pi * self.frequencies[...])
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class NCSNpp(resampled.ResampledUNet):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; see `ResampledUNet`."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *, channels: int, heads: int, embedding: str,
        taps: tuple[int, ...], time_scale: float = 1000.0, second_time: bool = False, outputs: int = 1,
        rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        if len(taps) % 2:
            raise UserError(f'network.taps has {len(taps)} numbers; an even number keeps the picture in place.')
        if channels % 2 or channels % heads:
            raise UserError(
                f'network.channels is {channels}; it should be even, and network.heads={heads} should divide it.'
            )
        features = channels * (2 if embedding == 'fourier' else 1)
        conditioning = layers.Conditioning(
            features, 4 * channels, forms, endpoint=True, kernel_init=layers.fan_average,
            class_init=resampled.silent_null(lambda n: nnx.initializers.variance_scaling(n, 'fan_avg', 'uniform')),
            vector_init=layers.fan_average, early=('classes', 'vector'), time_scale=time_scale,
            features_of_time=Fourier(features, rngs=rngs) if embedding == 'fourier' else None,
            second_time=second_time, rngs=rngs,
        )  # fmt: skip
        super().__init__(
            size, image_channels, forms, conditioning, style=STYLE, channels=channels, heads=lambda width: heads,
            taps=tuple(taps), outputs=outputs, rngs=rngs, **options,
        )  # fmt: skip
