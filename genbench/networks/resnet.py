"""Residual generator and discriminator for adversarial training, without normalisation, after Mescheder et al. 2018.

Differences from their appendix E.1 and code: a strided convolution halves the image where they use average pooling, and
a convolution follows each doubling. A block's middle is as wide as its end, not as its narrower side. The embedding of
a label has length √features, not 1. Kernels have variance 1 / inputs, and PyTorch's default has a third of that.
Gulrajani et al. 2017 use ReLU, batch normalisation in the generator, blocks that resample, and no factor of 1/10.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, combinations, combined
from genbench.networks import layers
from genbench.networks import spectral as spectral_layers
from genbench.ranges import COUNT, each

DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 2),  # channels at each resolution, in units of `channels`
    'blocks': 1,  # residual blocks at each resolution
    'latent': 64,  # number of dimensions of the generator's input
    'label_features': 16,  # width of the generator's label embedding
    'spectral': False,  # whether the discriminator's kernels have a largest singular value of 1
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
GENERATOR, DISCRIMINATOR = ('latent', 'label_features'), ('spectral',)  # keys that only one of the two takes
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'blocks': COUNT,
    'latent': COUNT,
    'label_features': COUNT,
}


class Block(nnx.Module):
    """x + h/10, where h is two convolutions, each after a leaky ReLU (Mescheder et al. 2018, appendix E.1).

    Args:
      kind: the module of its layers, `layers` or `spectral`.
    """

    def __init__(self, inputs: int, outputs: int, *, kind: Any = layers, rngs: nnx.Rngs):
        self.conv_in = kind.Conv(inputs, outputs, rngs=rngs)
        self.conv_out = kind.Conv(outputs, outputs, rngs=rngs)
        self.shortcut = kind.Linear(inputs, outputs, use_bias=False, rngs=rngs) if inputs != outputs else None

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.conv_out(_activate(self.conv_in(_activate(x))))
        return (x if self.shortcut is None else self.shortcut(x)) + 0.1 * h


def _activate(x: jax.Array) -> jax.Array:
    return nnx.leaky_relu(x, 0.2)


class Generator(nnx.Module):
    """Latents (batch, latent) → images in [−1, 1] (batch, size, size, image_channels)."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, latent: int, label_features: int,
        dtype: str = 'float32', rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        self.bottom = size >> (len(multipliers) - 1)
        self.classes = layers.Classes(forms, label_features, rngs=rngs)
        width = channels * multipliers[-1]
        body: list[nnx.Module] = []
        inputs = latent + (label_features if forms else 0)
        self.input = layers.Linear(inputs, self.bottom * self.bottom * width, rngs=rngs)
        for depth, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks):
                body.append(Block(width, channels * multiplier, rngs=rngs))
                width = channels * multiplier
            if depth:
                body.append(layers.Upsample(width, rngs=rngs))
        self.body = nnx.List(body)
        self.conv_out = layers.Conv(width, image_channels, rngs=rngs)

    def __call__(self, z: jax.Array, given: Given = None) -> jax.Array:
        embedded = self.classes(given)
        if embedded is not None:
            embedded = embedded / jnp.linalg.norm(embedded, axis=-1, keepdims=True)
            z = jnp.concatenate([z, embedded * math.sqrt(embedded.shape[-1])], axis=-1)
        h = self.input(z.astype(self.dtype)).reshape(len(z), self.bottom, self.bottom, -1)
        for layer in self.body:
            h = layer(h)
        return jnp.tanh(self.conv_out(_activate(h)).astype(jnp.float32))


class Discriminator(nnx.Module):
    """Images in [−1, 1] → logits (batch,). The image's classes select one of the outputs."""

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, dtype: str = 'float32', spectral: bool = False,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.forms = layers.compute_dtype(dtype), tuple(forms.items())
        kind: Any = spectral_layers if spectral else layers
        self.conv_in = kind.Conv(image_channels, channels, rngs=rngs)
        width = channels
        body: list[nnx.Module] = []
        for depth, multiplier in enumerate(multipliers):
            if depth:
                body.append(kind.Downsample(width, rngs=rngs))
            for _ in range(blocks):
                body.append(Block(width, channels * multiplier, kind=kind, rngs=rngs))
                width = channels * multiplier
        self.body = nnx.List(body)
        bottom = size >> (len(multipliers) - 1)
        self.output = kind.Linear(bottom * bottom * width, combinations(forms), rngs=rngs)

    def __call__(self, x: jax.Array, given: Given = None) -> jax.Array:
        h = self.conv_in(x.astype(self.dtype))
        for layer in self.body:
            h = layer(h)
        logits = self.output(_activate(h).reshape(len(h), -1)).astype(jnp.float32)
        if given is None:
            return logits[:, 0]
        return jnp.take_along_axis(logits, combined(dict(self.forms), given, len(x))[:, None], axis=1)[:, 0]
