"""A discriminator of patches: each of its logits sees a part of the image.

P. Isola, J.-Y. Zhu, T. Zhou, A. Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017
(PatchGAN, section 3.2.2); the official code of P. Esser, R. Rombach, B. Ommer, Taming Transformers for High-Resolution
Image Synthesis, 2021, settles its details. With three halvings, a logit sees 70×70 pixels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.networks import layers

Array = jax.Array

EPSILON, WIDEST = 1e-5, 8  # of the batch normalisation; channels at most, in units of those of the first layer
LEAST = 3  # rows and columns that two convolutions without a halving need


class Conv(nnx.Module):
    """A convolution with windows of 4×4 and one row and column of zeros at each side."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, bias: bool, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(0.02 * jax.random.normal(rngs.params(), (4, 4, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Array) -> Array:
        y = layers.convolve(x, self.kernel[...], (self.stride,) * 2, ((1, 1),) * 2)
        return y if self.bias is None else y + self.bias[...]


class Norm(nnx.Module):
    """Batch normalisation by the statistics of the batch. A discriminator is never used without one."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(1 + 0.02 * jax.random.normal(rngs.params(), (channels,)))
        self.shift = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array) -> Array:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * self.scale[...] + self.shift[...]


class Discriminator(nnx.Module):
    """Images in [−1, 1] (batch, height, width, channels) → logits (batch, rows, columns).

    Args:
      layers: the number of halvings at most. Images that these would leave below 3×3 are halved less often.
    """

    def __init__(self, shape: tuple[int, int, int], *, channels: int, layers: int, rngs: nnx.Rngs):
        while layers and min(shape[:2]) >> layers < LEAST:
            layers -= 1
        widths = [channels * min(2**index, WIDEST) for index in range(layers + 1)]
        self.first = Conv(shape[2], channels, stride=2 if layers else 1, bias=True, rngs=rngs)
        options: list[dict[str, Any]] = [{'stride': 1 if index == layers else 2} for index in range(1, layers + 1)]
        self.convs = nnx.List([
            Conv(before, after, bias=False, rngs=rngs, **one)
            for before, after, one in zip(widths[:-1], widths[1:], options, strict=True)
        ])  # fmt: skip
        self.norms = nnx.List([Norm(width, rngs=rngs) for width in widths[1:]])
        self.output = Conv(widths[-1], 1, stride=1, bias=True, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        h = nnx.leaky_relu(self.first(x), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = nnx.leaky_relu(norm(conv(h)), 0.2)
        return self.output(h)[..., 0]
