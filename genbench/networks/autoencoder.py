"""Convolutional encoder and decoder of an autoencoder, mirror images of each other.

With `middle`, one block more in the decoder than in the encoder, and the papers' `attention`, they are those of P.
Esser, R. Rombach, B. Ommer, Taming Transformers for High-Resolution Image Synthesis, 2021, and of R. Rombach et al.,
High-Resolution Image Synthesis with Latent Diffusion Models, 2022.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.residual import ResidualBlock
from genbench.ranges import COUNT, COUNT_OR_NONE, SHARE, each

DEFAULTS = {
    'channels': 32,
    'multipliers': (1, 2),  # channels at each resolution, in units of `channels`
    'blocks': 1,  # residual blocks at each resolution
    'decoder_blocks': 0,  # those of the decoder; 0: as many
    'attention': (),  # heights (in pixels) at which attention over pixels follows each residual block
    'middle': False,  # a residual block, attention over pixels and another block at the lowest resolution
    'groups': 8,  # groups of the group normalisation
    'dropout': 0.0,
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and outputs are always float32
}
RANGES = {
    'channels': COUNT,
    'multipliers': each(COUNT, fewest=1),
    'blocks': COUNT,
    'decoder_blocks': COUNT_OR_NONE,
    'attention': each(COUNT, int),
    'groups': COUNT,
    'dropout': SHARE,
}


def check_attention(size: int, options: Mapping[str, Any]) -> None:
    """Raise a UserError for a height in `attention` that no resolution of the networks has."""
    able = [size >> depth for depth in range(len(options['multipliers']))]
    for height in options['attention']:
        if height not in able:
            raise UserError(f'network.attention has {height}, but images of {size} pixels have the heights '
                            f'{", ".join(map(str, able))} with these network.multipliers; use these.')  # fmt: skip


class Encoder(nnx.Module):
    """Images in [−1, 1] (batch, size, size, channels) → codes (batch, outputs).

    With `pictures`, a code is a picture at the lowest resolution, (batch, height, width, outputs).
    """

    def __init__(
        self, size: int, image_channels: int, outputs: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, groups: int, dropout: float,
        dtype: str = 'float32', pictures: bool = False, attention: tuple[int, ...] = (), middle: bool = False,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        condition = channels if forms else 0

        def block(inputs, outputs):
            return ResidualBlock(inputs, outputs, condition=condition, groups=groups, dropout=dropout, rngs=rngs)

        self.classes = layers.Classes(forms, condition, rngs=rngs)
        self.conv_in = layers.Conv(image_channels, channels, rngs=rngs)
        width, body = channels, list[nnx.Module]()
        for depth, multiplier in enumerate(multipliers):
            if depth:
                body.append(layers.Downsample(width, rngs=rngs))
            for _ in range(blocks):
                body.append(block(width, channels * multiplier))
                width = channels * multiplier
                body += _attention(width, groups, rngs) if size >> depth in attention else []
        body += _middle(block, width, groups, rngs) if middle else []
        self.body = nnx.List(body)
        self.norm_out = layers.GroupNorm(width, groups=groups)
        self.pictures, bottom = pictures, size >> (len(multipliers) - 1)
        last = layers.Conv if pictures else layers.Linear
        self.output = last(width if pictures else bottom * bottom * width, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        condition = _typed(self.classes(given), self.dtype)
        h = self.conv_in(x.astype(self.dtype))
        for index, layer in enumerate(self.body):
            h = layer(h, condition, _fold(key, index)) if isinstance(layer, ResidualBlock) else layer(h)
        h = nnx.silu(self.norm_out(h))
        return self.output(h if self.pictures else h.reshape(len(h), -1)).astype(jnp.float32)


class Decoder(nnx.Module):
    """An encoder's codes, with this many inputs → (batch, size, size, outputs)."""

    def __init__(
        self, size: int, inputs: int, outputs: int, forms: Mapping[str, Form], *,
        channels: int, multipliers: tuple[int, ...], blocks: int, groups: int, dropout: float,
        dtype: str = 'float32', pictures: bool = False, attention: tuple[int, ...] = (), middle: bool = False,
        decoder_blocks: int = 0, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype = layers.compute_dtype(dtype)
        condition = channels if forms else 0

        def block(inputs, outputs):
            return ResidualBlock(inputs, outputs, condition=condition, groups=groups, dropout=dropout, rngs=rngs)

        self.classes = layers.Classes(forms, condition, rngs=rngs)
        self.bottom = size >> (len(multipliers) - 1)
        width, body = channels * multipliers[-1], []
        first = layers.Conv if pictures else layers.Linear
        self.input = first(inputs, width if pictures else self.bottom * self.bottom * width, rngs=rngs)
        body += _middle(block, width, groups, rngs) if middle else []
        for depth, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(decoder_blocks or blocks):
                body.append(block(width, channels * multiplier))
                width = channels * multiplier
                body += _attention(width, groups, rngs) if size >> depth in attention else []
            if depth:
                body.append(layers.Upsample(width, rngs=rngs))
        self.body = nnx.List(body)
        self.norm_out = layers.GroupNorm(width, groups=groups)
        self.conv_out = layers.Conv(width, outputs, rngs=rngs)

    def __call__(self, z: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        return self.conv_out(self.features(z, given, key)).astype(jnp.float32)

    def features(self, z: jax.Array, given: Given = None, key: jax.Array | None = None) -> jax.Array:
        """What the last convolution sees, (batch, size, size, channels)."""
        condition = _typed(self.classes(given), self.dtype)
        h = self.input(z.astype(self.dtype)).reshape(len(z), self.bottom, self.bottom, -1)
        for index, layer in enumerate(self.body):
            h = layer(h, condition, _fold(key, index)) if isinstance(layer, ResidualBlock) else layer(h)
        return nnx.silu(self.norm_out(h))


def _middle(block: Callable[[int, int], ResidualBlock], width: int, groups: int, rngs: nnx.Rngs) -> list[nnx.Module]:
    return [block(width, width), *_attention(width, groups, rngs), block(width, width)]


def _attention(width: int, groups: int, rngs: nnx.Rngs) -> list[nnx.Module]:
    return [layers.Attention(width, groups=groups, rngs=rngs)]


def _typed(condition: jax.Array | None, dtype: Any) -> jax.Array | None:
    return None if condition is None else condition.astype(dtype)


def _fold(key: jax.Array | None, index: int) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, index)
