"""Multimodal diffusion transformers: P. Esser et al., Scaling Rectified Flow Transformers, 2024 (Stable Diffusion 3).

Captions and images are two streams of tokens with their own weights, which attend to each other and to themselves in
one attention. Time and the caption as a whole modulate both streams. The paper's sizes are width 64 · depth with
`depth` heads; Stable Diffusion 3 medium has depth 24, patches of 2, and queries and keys without a norm.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import dit, layers, text, transformer
from genbench.networks.transformer import Perceptron, modulate, positions, rms, xavier

Array = jax.Array

DEFAULTS = {
    **dit.DEFAULTS,
    'qk_norm': True,  # normalise queries and keys by their root mean square (section 5.3.2)
    'text_depth': 2,
}
RANGES = dit.RANGES


class Stream(nnx.Module):
    """One stream's part of a block: its modulation, queries, keys, values, output and perceptron.

    Args:
      last: the stream ends with the block's attention, and so has no output and no perceptron.
    """

    def __init__(self, width: int, heads: int, expansion: int, *, qk_norm: bool, last: bool, rngs: nnx.Rngs):
        self.heads, self.last = heads, last
        self.modulation = layers.Linear(width, (2 if last else 6) * width, kernel_init=layers.zeros, rngs=rngs)
        build = functools.partial(layers.Linear, kernel_init=xavier, rngs=rngs)
        self.attention = nnx.Dict(
            {'inputs': build(width, 3 * width), **({} if last else {'output': build(width, width)})}
        )
        self.scales = nnx.Param(jnp.ones((2, width // heads))) if qk_norm else None
        self.mlp = None if last else Perceptron(width, expansion * width, rngs=rngs)

    def ask(self, x: Array, condition: Array) -> tuple[Array, list[Array]]:
        """Queries, keys and values (batch, tokens, 3, heads, size), and the modulation of what follows them."""
        shift, scale, *later = jnp.split(self.modulation(condition), 2 if self.last else 6, axis=-1)
        qkv = self.attention['inputs'].into(modulate(x, shift, scale), 3, self.heads, x.shape[-1] // self.heads)
        if self.scales is None:
            return qkv, later
        scaled = rms(qkv[:, :, :2]) * self.scales[...][:, None]
        return jnp.concatenate([scaled.astype(qkv.dtype), qkv[:, :, 2:]], axis=2), later

    def take(self, x: Array, found: Array, later: list[Array]) -> Array:
        """x with what attention found (batch, tokens, heads, size), and then with the perceptron's output."""
        if self.mlp is None:
            return x
        gate, shift, scale, gate_mlp = later
        x = x + gate[:, None] * self.attention['output'](found.reshape(x.shape))
        return x + gate_mlp[:, None] * self.mlp(modulate(x, shift, scale))


class JointBlock(nnx.Module):
    """Joint attention of words (batch, length, width) and image tokens (batch, tokens, width).

    A fresh block is the identity. The last one changes image tokens only.
    """

    def __init__(self, width: int, heads: int, expansion: int, *, qk_norm: bool, last: bool, rngs: nnx.Rngs):
        self.text = Stream(width, heads, expansion, qk_norm=qk_norm, last=last, rngs=rngs)
        self.image = Stream(width, heads, expansion, qk_norm=qk_norm, last=False, rngs=rngs)

    def __call__(self, words: Array, x: Array, condition: Array) -> tuple[Array, Array]:
        asked, later = self.text.ask(words, condition)
        asked_by_image, later_image = self.image.ask(x, condition)
        found = layers.attend(jnp.concatenate([asked, asked_by_image], axis=1))
        length = words.shape[1]
        return self.text.take(words, found[:, :length], later), self.image.take(x, found[:, length:], later_image)


class MMDiT(nnx.Module):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; zero when fresh.

    Captions are a stream of their own, and as a whole pass two layers and are added to the embedding of time, as are
    classes and vectors. Pictures become further channels.

    Args:
      shape: height, width and channels of the images.
      forms: the forms of the conditions, by name.
      second_time: build the network for calls with a time s before t.
      reader: the keys of `text.DEFAULTS`.

    Raises:
      UserError: no condition is a caption, the patches do not tile the images, or the heads do not divide the width.
    """

    def __init__(
        self, shape: tuple[int, ...], forms: Mapping[str, Form], *,
        patch: int, depth: int, width: int, heads: int, expansion: int = 4, qk_norm: bool = True,
        time_scale: float = 1000.0, dtype: str = 'float32', remat: str = 'none', second_time: bool = False,
        outputs: int = 1, rngs: nnx.Rngs, **reader: int,
    ):  # fmt: skip
        rows, columns, channels = shape
        context = text.wide(forms, width, **reader)
        if not context:
            raise UserError('The network mmdit reads captions: add caption to family.conditions, or use a dit.')
        transformer.check_sizes(rows, columns, patch, width, heads)
        self.dtype, self.remat = layers.compute_dtype(dtype), layers.check_remat(remat)
        self.patch, self.grid, self.forms = patch, (rows // patch, columns // patch), tuple(forms.items())
        self.conditioning = layers.Conditioning(
            dit.TIME_FEATURES, width, forms, endpoint=False, kernel_init=dit.table, class_init=dit.table,
            time_scale=time_scale, second_time=second_time, rngs=rngs,
        )  # fmt: skip
        self.tokens = layers.Linear(
            patch * patch * (channels + layers.channels_of(forms)), width, kernel_init=xavier, rngs=rngs
        )
        self.context = layers.Linear(context, width, kernel_init=xavier, rngs=rngs)
        self.blocks = nnx.List([
            JointBlock(width, heads, expansion, qk_norm=qk_norm, last=index == depth - 1, rngs=rngs)
            for index in range(depth)
        ])  # fmt: skip
        self.modulation = layers.Linear(width, 2 * width, kernel_init=layers.zeros, rngs=rngs)
        self.output = layers.Linear(width, patch * patch * channels * outputs, kernel_init=layers.zeros, rngs=rngs)
        self.words = text.reader(forms, width, 0, rngs=rngs, **reader)
        whole = (layers.Linear(inputs, width, kernel_init=dit.table, rngs=rngs) for inputs in (context, width))
        self.whole = nnx.List(whole if isinstance(self.words, text.Reader) else ())

    def __call__(
        self, x: Array, t: Array, given: Given = None, key: Array | None = None, s: Array | None = None
    ) -> Array:
        """x (batch, height, width, channels), t and s (batch,) in [0, 1], conditions or None; `key` is not used.

        s defaults to t."""
        words, whole = self.words.read(given, len(x))
        if whole is not None:
            hidden, output = self.whole
            whole = output(nnx.silu(hidden(whole)))
        condition = self.conditioning(t, given, s, whole).astype(self.dtype)
        assert words is not None, 'the constructor refuses networks without captions'
        words = self.context(words.astype(self.dtype))
        h = self.tokens(transformer.into_patches(layers.with_channels(x, dict(self.forms), given), self.patch)
                        .astype(self.dtype))  # fmt: skip
        h = h + jnp.asarray(positions(*self.grid, h.shape[-1]), self.dtype)
        for block in self.blocks:
            words, h = layers.rematerialise(self.remat, block)(words, h, condition)
        y = self.output(modulate(h, *jnp.split(self.modulation(condition), 2, axis=-1)))
        return transformer.from_patches(y, self.grid, self.patch).astype(jnp.float32)
