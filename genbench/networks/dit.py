"""Diffusion transformers: Peebles & Xie 2023, Scalable Diffusion Models with Transformers, with adaLN-Zero.

The paper's sizes as (depth, width, heads): S (12, 384, 6), B (12, 768, 12), L (24, 1024, 16), XL (28, 1152, 16).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers, text, transformer
from genbench.networks.transformer import Attention, Perceptron, modulate, positions, xavier
from genbench.ranges import COUNT, POSITIVE

Array = jax.Array

DEFAULTS = {
    'patch': 2,  # pixels along a side of a patch; each patch is a token
    'depth': 4,
    'width': 128,
    'heads': 4,
    'expansion': 4,  # width of the hidden layer of an MLP, in units of `width`
    'time_scale': 1000.0,  # scale of the time sinusoids; use less if a loss differentiates with respect to time
    'dtype': 'float32',  # type of the computation, or 'bfloat16'; parameters and the output are always float32
    'remat': 'none',  # or 'blocks', 'dots': recompute blocks for the gradient instead of keeping their activations
    **text.DEFAULTS,
}
RANGES = {
    'patch': COUNT,
    'depth': COUNT,
    'width': COUNT,
    'heads': COUNT,
    'expansion': COUNT,
    'time_scale': POSITIVE,
    **text.RANGES,
}

TIME_FEATURES = 256
table = nnx.initializers.normal(0.02)  # for the embeddings of times and labels, as in the official code


class Block(nnx.Module):
    """Residual attention and perceptron, each normalised, modulated and gated. A fresh block is the identity.

    If there are words, of width `words`, the block attends to them between the two.
    """

    modulate = staticmethod(modulate)

    def __init__(self, width: int, heads: int, expansion: int, words: int, *, rngs: nnx.Rngs):
        self.modulation = layers.Linear(width, 6 * width, kernel_init=layers.zeros, rngs=rngs)
        self.attention: Any = Attention(width, heads, rngs=rngs)
        self.mlp: Any = Perceptron(width, expansion * width, rngs=rngs)
        self.words = layers.CrossAttention(width, words, heads=heads, rngs=rngs) if words else None

    def __call__(self, x: Array, condition: Array, words: Array | None) -> Array:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(self.modulation(condition), 6, axis=-1)
        x = x + gate[:, None] * self.attention(self.modulate(x, shift, scale))
        if self.words is not None and words is not None:
            x = self.words(x, words)
        return x + gate_mlp[:, None] * self.mlp(self.modulate(x, shift_mlp, scale_mlp))


class DiT(nnx.Module):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; zero when fresh.

    Classes, vectors and captions as a whole are added to the embedding of time, pictures become further channels, and
    every block attends to words.

    Args:
      shape: height, width and channels of the images.
      forms: the forms of the conditions, by name.
      second_time: build the network for calls with a time s before t.
      reader: the keys of `text.DEFAULTS`.

    Raises:
      UserError: the patches do not tile the images, or the heads do not divide the width.
    """

    modulate = staticmethod(modulate)

    def __init__(
        self, shape: tuple[int, ...], forms: Mapping[str, Form], *,
        patch: int, depth: int, width: int, heads: int, expansion: int = 4, time_scale: float = 1000.0,
        dtype: str = 'float32', remat: str = 'none', second_time: bool = False, outputs: int = 1, rngs: nnx.Rngs,
        **reader: int,
    ):  # fmt: skip
        rows, columns, channels = shape
        transformer.check_sizes(rows, columns, patch, width, heads)
        self.dtype, self.remat = layers.compute_dtype(dtype), layers.check_remat(remat)
        self.patch, self.grid, self.forms = patch, (rows // patch, columns // patch), tuple(forms.items())
        width_of_words = text.wide(forms, width, **reader)
        self.conditioning = layers.Conditioning(
            TIME_FEATURES, width, forms, endpoint=False, kernel_init=table, class_init=table, time_scale=time_scale,
            second_time=second_time, rngs=rngs,
        )  # fmt: skip
        inputs = patch * patch * (channels + layers.channels_of(forms))
        self.tokens = layers.Linear(inputs, width, kernel_init=xavier, rngs=rngs)
        self.blocks = nnx.List([self.block(width, heads, expansion, width_of_words, rngs) for _ in range(depth)])
        self.modulation = layers.Linear(width, 2 * width, kernel_init=layers.zeros, rngs=rngs)
        self.output = layers.Linear(width, patch * patch * channels * outputs, kernel_init=layers.zeros, rngs=rngs)
        self.words = text.reader(forms, width, width, rngs=rngs, **reader)
        self.widths = (width,) * depth

    def __call__(
        self, x: Array, t: Array, given: Given = None, key: Array | None = None, s: Array | None = None
    ) -> Array:
        """x (batch, height, width, channels), t and s (batch,) in [0, 1], conditions or None; `key` is not used.

        s defaults to t."""
        condition, *_, h = self._states(x, t, given, s)
        y = self.output(self.modulate(h, *jnp.split(self.modulation(condition), 2, axis=-1)))
        return transformer.from_patches(y, self.grid, self.patch).astype(jnp.float32)

    def block(self, width: int, heads: int, expansion: int, words: int, rngs: nnx.Rngs) -> nnx.Module:
        """One of the blocks."""
        return Block(width, heads, expansion, words, rngs=rngs)

    def placed(self, h: Array) -> Array:
        """The tokens h (batch, tokens, width) with the embeddings of their places."""
        return h + jnp.asarray(positions(*self.grid, h.shape[-1]), self.dtype)

    def features(self, x: Array, t: Array, given: Given = None) -> list[Array]:
        """The tokens after each block, (batch, rows, columns, width) each."""
        return [h.reshape(len(x), *self.grid, -1) for h in self._states(x, t, given)[1:]]

    def _states(self, x: Array, t: Array, given: Given, s: Array | None = None) -> list[Array]:
        """The vector of time and conditions, (batch, width), and the tokens after each block."""
        words, whole = self.words.read(given, len(x))
        condition = self.conditioning(t, given, s, whole).astype(self.dtype)
        seen = layers.with_channels(x, dict(self.forms), given)
        h = self.tokens(transformer.into_patches(seen, self.patch).astype(self.dtype))
        h = self.placed(h)
        states = [condition]
        for block in self.blocks:
            h = layers.rematerialise(self.remat, block)(h, condition, words)
            states.append(h)
        return states
