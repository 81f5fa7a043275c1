"""A diffusion transformer with the parts of later transformers, to compare with `dit`.

It has RMS normalisation (Zhang & Sennrich 2019), rotary positions (Su et al. 2021) of the row and the column in place
of added ones, SwiGLU perceptrons (Shazeer 2020), and normalised queries and keys (Esser et al. 2024, section 5.3.2).
LightningDiT (Yao & Wang 2025, Reconstruction vs. Generation) has the same parts, and adds positions as well. Everything
else is that of `dit`: its sizes, conditions, adaLN-Zero and initialisation. Perceptrons have about as many parameters
as those of `dit`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.errors import UserError
from genbench.networks import dit, layers, transformer
from genbench.networks.transformer import rms, xavier

Array = jax.Array

DEFAULTS = dit.DEFAULTS
RANGES = dit.RANGES


def angles(rows: int, columns: int, size: int) -> np.ndarray:
    """The angles (rows · columns, size / 2) that rotate pairs of features: of the row, then as many of the column."""
    frequencies = 10_000.0 ** -(np.arange(size // 4) / (size // 4))
    return np.concatenate([np.outer(axis.reshape(-1), frequencies) for axis in np.mgrid[:rows, :columns]], axis=1)


def rotated(x: Array, turned: np.ndarray) -> Array:
    """x (batch, tokens, …, heads, size), each feature of its first half paired with one of its second and turned.

    The product of two rotated vectors depends on their tokens through the difference of the angles alone.
    """
    shape = (len(turned), *(1 for _ in x.shape[2:-1]), turned.shape[1])
    cosine, sine = (jnp.asarray(wave(turned), x.dtype).reshape(shape) for wave in (np.cos, np.sin))
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=-1)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Scale and shift x (batch, tokens, width) over its root mean square, with one scale and shift per image."""
    return rms(x).astype(x.dtype) * (1 + scale[:, None]) + shift[:, None]


class Attention(transformer.Attention):
    """Self-attention of the tokens (batch, tokens, width) of a grid, with normalised and rotated queries and keys.

    As in `dit`, the scores are divided by the root of the size of a head.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, int], *, rngs: nnx.Rngs):
        super().__init__(width, heads, rngs=rngs)
        self.grid, self.scales = grid, nnx.Param(jnp.ones((2, width // heads)))

    def prepared(self, qkv: Array) -> Array:
        asked = rotated(rms(qkv[:, :, :2]) * self.scales[...][:, None], angles(*self.grid, qkv.shape[-1]))
        return jnp.concatenate([asked.astype(qkv.dtype), qkv[:, :, 2:]], axis=2)


class SwiGLU(nnx.Module):
    """A layer, whose second half multiplies the SiLU of its first, and a layer after it."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.halves = hidden
        self.hidden = layers.Linear(width, 2 * hidden, kernel_init=xavier, rngs=rngs)
        self.output = layers.Linear(hidden, width, kernel_init=xavier, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        h = self.hidden.into(x, 2, self.halves)
        return self.output(nnx.silu(h[..., 0, :]) * h[..., 1, :])


class Block(dit.Block):
    """`dit.Block` of these parts."""

    modulate = staticmethod(modulate)

    def __init__(
        self, width: int, heads: int, expansion: int, words: int, grid: tuple[int, int], *, rngs: nnx.Rngs
    ):  # fmt: skip
        self.modulation = layers.Linear(width, 6 * width, kernel_init=layers.zeros, rngs=rngs)
        self.attention = Attention(width, heads, grid, rngs=rngs)
        hidden = -(-2 * expansion * width // 24) * 8  # two thirds, for there are three matrices; a multiple of 8
        self.mlp = SwiGLU(width, hidden, rngs=rngs)
        self.words = layers.CrossAttention(width, words, heads=heads, rngs=rngs) if words else None


class ModernDiT(dit.DiT):
    """(x_t, t, given) → an array shaped like x_t; see `dit.DiT`.

    Raises:
      UserError: as for `dit.DiT`, or a head has no pairs of features for both the rows and the columns.
    """

    modulate = staticmethod(modulate)

    def block(self, width: int, heads: int, expansion: int, words: int, rngs: nnx.Rngs) -> nnx.Module:
        if width // heads % 4:
            raise UserError(f'network.width is {width} and network.heads {heads}; the width of a head should be '
                            'divisible by 4 for rotary positions.')  # fmt: skip
        return Block(width, heads, expansion, words, self.grid, rngs=rngs)

    def located(self, h: Array) -> Array:
        return h
