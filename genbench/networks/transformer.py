"""What transformers share: patches of images and their places, self-attention between tokens, and the perceptron."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.errors import UserError
from genbench.networks import layers

Array = jax.Array

xavier = nnx.initializers.xavier_uniform()


def check_sizes(rows: int, columns: int, patch: int, width: int, heads: int) -> None:
    """Raise a UserError if the patches do not tile the images, or the heads do not divide the width."""
    if rows % patch or columns % patch:
        raise UserError(f'Patches of {patch} pixels (network.patch) do not tile images of {rows}×{columns}.')
    if width % heads or width % 4:
        raise UserError(f'network.width is {width}; it should be divisible by 4 and by network.heads ({heads}).')


def into_patches(x: Array, patch: int) -> Array:
    """Images (batch, height, width, channels) → patches in raster order (batch, rows · columns, patch² · channels)."""
    batch, height, width, _ = x.shape
    rows, columns = height // patch, width // patch
    return x.reshape(batch, rows, patch, columns, patch, -1).swapaxes(2, 3).reshape(batch, rows * columns, -1)


def from_patches(y: Array, grid: tuple[int, int], patch: int) -> Array:
    """Patches (batch, rows · columns, patch² · channels) → images (batch, height, width, channels)."""
    rows, columns = grid
    y = y.reshape(len(y), rows, columns, patch, patch, -1).swapaxes(2, 3)
    return y.reshape(len(y), rows * patch, columns * patch, -1)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """The fixed embedding of a grid (rows · columns, width): sines and cosines of the column, then of the row."""
    quarter = width // 4
    frequencies = np.exp(-math.log(10_000.0) * np.arange(quarter) / quarter)
    parts = [np.outer(axis.reshape(-1), frequencies) for axis in np.mgrid[:rows, :columns][::-1]]
    return np.concatenate([wave(part) for part in parts for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


def normalise(x: Array) -> Array:
    """Layer normalisation without parameters (Ba et al. 2016), with statistics in float32."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)


def rms(x: Array) -> Array:
    """x over the root mean square of its last axis (Zhang & Sennrich 2019), in float32."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-6)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Scale and shift the normalised x (batch, tokens, width), with one scale and shift per image."""
    return normalise(x) * (1 + scale[:, None]) + shift[:, None]


class Attention(nnx.Module):
    """Self-attention between tokens (batch, tokens, width)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.inputs = layers.Linear(width, 3 * width, kernel_init=xavier, rngs=rngs)
        self.output = layers.Linear(width, width, kernel_init=xavier, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        qkv = self.inputs.into(x, 3, self.heads, x.shape[-1] // self.heads)
        return self.output(layers.attend(self.prepared(qkv)).reshape(x.shape))

    def prepared(self, qkv: Array) -> Array:
        """Queries, keys and values (batch, tokens, 3, heads, size) as they are compared."""
        return qkv


class Perceptron(nnx.Module):
    """Two layers with GELU, in its tanh form, between them."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = layers.Linear(width, hidden, kernel_init=xavier, rngs=rngs)
        self.output = layers.Linear(hidden, width, kernel_init=xavier, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.output(jax.nn.gelu(self.hidden(x), approximate=True))
