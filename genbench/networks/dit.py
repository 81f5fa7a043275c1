"""Diffusion transformers: Peebles & Xie 2023, Scalable Diffusion Models with Transformers, with adaLN-Zero.

The paper's sizes as (depth, width, heads): S (12, 384, 6), B (12, 768, 12), L (24, 1024, 16), XL (28, 1152, 16).
"""

import functools
from collections.abc import Mapping, Sequence
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


class Trunk(nnx.Module):
    """A DiT up to its last block. It takes the DiT's arguments.

    A subclass creates `words`, after its own layers.
    """

    words: layers.Words

    def __init__(
        self, shape: tuple[int, ...], forms: Mapping[str, Form], *,
        patch: int, depth: int, width: int, heads: int, expansion: int = 4, time_scale: float = 1000.0,
        dtype: str = 'float32', remat: str = 'none', second_time: bool = False, rngs: nnx.Rngs, **reader: int,
    ):  # fmt: skip
        rows, columns, channels = shape
        transformer.check_sizes(rows, columns, patch, width, heads)
        self.dtype, self.remat = layers.compute_dtype(dtype), layers.check_remat(remat)
        self.patch, self.grid, self.forms = patch, (rows // patch, columns // patch), tuple(forms.items())
        self.reader = reader
        width_of_words = text.wide(forms, width, **reader)
        self.conditioning = layers.Conditioning(
            TIME_FEATURES, width, forms, endpoint=False, kernel_init=table, class_init=table, time_scale=time_scale,
            second_time=second_time, rngs=rngs,
        )  # fmt: skip
        inputs = patch * patch * (channels + layers.channels_of(forms))
        self.tokens = layers.Linear(inputs, width, kernel_init=xavier, rngs=rngs)
        self.blocks = nnx.List([self.block(width, heads, expansion, width_of_words, rngs) for _ in range(depth)])

    def placed(self, image: Array, tokens: layers.Linear) -> Array:
        """The tokens (batch, rows · columns, width) of an image's patches, with their places."""
        return self.located(tokens(transformer.into_patches(image, self.patch).astype(self.dtype)))

    def located(self, h: Array) -> Array:
        """The tokens h (batch, tokens, width) with the embeddings of their places."""
        return h + jnp.asarray(positions(*self.grid, h.shape[-1]), self.dtype)

    def block(self, width: int, heads: int, expansion: int, words: int, rngs: nnx.Rngs) -> nnx.Module:
        """One of the blocks."""
        return Block(width, heads, expansion, words, rngs=rngs)

    def states(
        self, x: Array, t: Array, given: Given, s: Array | None = None, hint: Array | None = None,
        residuals: Sequence[Array] = (),
    ) -> list[Array]:  # fmt: skip
        """The vector of time and conditions, (batch, width), and the tokens after each block.

        Args:
          hint: added to the tokens before the first block.
          residuals: added to the tokens after each of the first blocks.
        """
        words, whole = self.words.read(given, len(x))
        condition = self.conditioning(t, given, s, whole).astype(self.dtype)
        h = self.placed(layers.with_channels(x, dict(self.forms), given), self.tokens)
        h = h if hint is None else h + hint
        found = [condition]
        for index, block in enumerate(self.blocks):
            h = layers.rematerialise(self.remat, block)(h, condition, words)
            h = h + residuals[index] if index < len(residuals) else h
            found.append(h)
        return found


class DiT(Trunk):
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
        width: int, outputs: int = 1, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        super().__init__(shape, forms, width=width, rngs=rngs, **options)
        self.modulation = layers.Linear(width, 2 * width, kernel_init=layers.zeros, rngs=rngs)
        self.output = layers.Linear(width, self.patch**2 * shape[2] * outputs, kernel_init=layers.zeros, rngs=rngs)
        self.words = text.reader(forms, width, width, rngs=rngs, **self.reader)
        self.widths = (width,) * len(self.blocks)

    def __call__(
        self, x: Array, t: Array, given: Given = None, key: Array | None = None, s: Array | None = None,
        residuals: Sequence[Array] = (),
    ) -> Array:  # fmt: skip
        """x (batch, height, width, channels), t and s (batch,) in [0, 1], conditions or None; `key` is not used.

        s defaults to t. Residuals from a `Control` are added to the tokens after each of the first blocks."""
        condition, *_, h = self.states(x, t, given, s, residuals=residuals)
        y = self.output(self.modulate(h, *jnp.split(self.modulation(condition), 2, axis=-1)))
        return transformer.from_patches(y, self.grid, self.patch).astype(jnp.float32)

    def features(self, x: Array, t: Array, given: Given = None) -> list[Array]:
        """The tokens after each block, (batch, rows, columns, width) each."""
        return [h.reshape(len(x), *self.grid, -1) for h in self.states(x, t, given)[1:]]


class Control(Trunk):
    """(x_t, t, given) → the residuals of a `DiT`, from pictures that it was not built for; zero when fresh.

    J. Chen et al., PixArt-δ, 2024 (ControlNet-Transformer): this is a copy of the DiT's first blocks that also sees the
    pictures, which are added to its tokens. Pictures enter and residuals leave through layers that start at zero.

    Args:
      pictures: the forms of these pictures.
      depth: the number of blocks that are copied. All other arguments are those of the `DiT`.
    """

    def __init__(
        self, shape: tuple[int, ...], forms: Mapping[str, Form], pictures: Mapping[str, Form], *,
        width: int, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        super().__init__(shape, forms, width=width, rngs=rngs, **options)
        self.pictures = tuple(pictures.items())
        seen = self.patch**2 * layers.channels_of(pictures)
        self.hint_in = layers.Linear(seen, width, kernel_init=xavier, rngs=rngs)
        build = functools.partial(layers.Linear, width, width, kernel_init=layers.zeros, rngs=rngs)
        self.hint_out, self.outputs = build(), nnx.List([build() for _ in self.blocks])
        self.words = text.reader(forms, width, width, rngs=rngs, **self.reader)

    def begin_as(self, network: DiT) -> None:
        """Copy the parameters of this DiT up to the last copied block."""
        for name in ('conditioning', 'tokens', 'words'):
            nnx.update(getattr(self, name), nnx.state(getattr(network, name)))
        for copied, block in zip(self.blocks, network.blocks, strict=False):
            nnx.update(copied, nnx.state(block))

    def __call__(self, x: Array, t: Array, given: Given = None, key: Array | None = None) -> list[Array]:
        seen = layers.with_channels(x, dict(self.pictures), given)[..., x.shape[-1] :]
        states = self.states(x, t, given, hint=self.hint_out(self.placed(seen, self.hint_in)))[1:]
        return [layer(state) for layer, state in zip(self.outputs, states, strict=True)]
