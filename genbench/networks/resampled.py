"""U-Nets whose residual blocks change the resolution themselves (Brock et al. 2019, BigGAN), like NCSN++ and ADM.

A block that halves or doubles its picture filters it too, between its first activation and its first convolution, and
does the same on the shortcut. `ncsnpp` and `adm` describe their other differences as a `Style`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.networks import layers, text, unet
from genbench.networks.unet import numbered

Array = jax.Array
# The keys of the plain U-Net without those of heads, norms and readers of captions, which are tables here.
# Self-attention always follows the middle block here.
_OTHERS = ('heads', 'groups', 'scale_shift', *text.DEFAULTS)
DEFAULTS = {key: value for key, value in unet.DEFAULTS.items() if key not in _OTHERS}
RANGES = {key: value for key, value in unet.RANGES.items() if key not in _OTHERS}


@dataclasses.dataclass(frozen=True)
class Style:
    """The differences between published U-Nets of this kind.

    Attributes:
      adaptive: the condition scales and shifts the normalised values (ADM). Otherwise it is added before the norm.
      project: a shortcut that changes the resolution also has a 1×1 convolution.
      scale: the factor of every sum of a shortcut and a branch.
      epsilon: the epsilon of the normalisations.
      attend_up: on the way up, attention follows every block at its resolutions. Otherwise it follows only the last.
      wide_start: the first layer is as wide as the first resolution. Otherwise it has `channels` channels.
      kernel_init, attention_init: initialisers of weights, and of those for queries, keys and values. The last layer of
        a branch starts at zero.
      bias_init: number of inputs of a layer → initialiser of its bias.
    """

    adaptive: bool
    project: bool
    scale: float
    epsilon: float
    attend_up: bool
    wide_start: bool
    kernel_init: layers.Initializer
    attention_init: layers.Initializer
    bias_init: Callable[[int], layers.Initializer]

    def norm(self, width: int) -> layers.GroupNorm:
        """Group normalisation with at least four channels per group and at most 32 groups."""
        return layers.GroupNorm(width, groups=max(1, min(32, width // 4)), epsilon=self.epsilon)

    def conv(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> layers.Conv:
        bias_init = self.bias_init(9 * inputs)
        return layers.Conv(inputs, outputs, kernel_init=self.kernel_init, bias_init=bias_init, rngs=rngs)

    def linear(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> layers.Linear:
        bias_init = self.bias_init(inputs)
        return layers.Linear(inputs, outputs, kernel_init=self.kernel_init, bias_init=bias_init, rngs=rngs)


def halving(size: int, taps: tuple[int, ...], pad: int) -> np.ndarray:
    """The matrix that filters a line of `size` pixels, with `pad` zeros at both ends, and keeps every second pixel."""
    outputs = (size + 2 * pad - len(taps)) // 2 + 1
    matrix = np.zeros((outputs, size), np.float32)
    for row in range(outputs):
        for tap, weight in enumerate(taps):
            if 0 <= (column := 2 * row + tap - pad) < size:
                matrix[row, column] = weight / sum(taps)
    return matrix


def centred(taps: tuple[int, ...]) -> int:
    """The number of zeros at each end that keeps the picture in place."""
    return (len(taps) - 1) // 2


def halved(x: Array, taps: tuple[int, ...], pad: int | None = None) -> Array:
    """Filter x (batch, height, width, channels) and keep every second pixel."""
    pad = centred(taps) if pad is None else pad
    return on_lines(x, *(halving(size, taps, pad) for size in x.shape[1:3]))


def doubled(x: Array, taps: tuple[int, ...]) -> Array:
    """Four times the adjoint of `halved`; the taps (1, 1) repeat pixels."""
    return on_lines(x, *(2 * halving(2 * size, taps, centred(taps)).T for size in x.shape[1:3]))


def on_lines(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """x (batch, height, width, channels) with matrices applied to its lines: new rows from rows, then columns."""
    x = jnp.einsum('ip,bpqc->biqc', jnp.asarray(rows, x.dtype), x, precision='highest')
    return jnp.einsum('jq,biqc->bijc', jnp.asarray(columns, x.dtype), x, precision='highest')


class Block(nnx.Module):
    """A residual block that may halve or double its picture, optionally followed by attention.

    Args:
      resample: 'down', 'up' or ''.
      heads: the number of attention heads; 0 for no attention.
      words: the width of the words that the block attends to; 0 for no words.
    """

    def __init__(
        self, inputs: int, outputs: int, *, condition: int, words: int, resample: str = '', taps: tuple[int, ...],
        heads: int, dropout: float, remat: str, style: Style, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.resample, self.taps, self.style, self.dropout = resample, taps, style, dropout
        self.remat = layers.check_remat(remat)
        self.norm_in, self.norm_out = style.norm(inputs), style.norm(outputs)
        self.conv_in = style.conv(inputs, outputs, rngs=rngs)
        self.condition = style.linear(condition, (1 + style.adaptive) * outputs, rngs=rngs)
        self.conv_out = layers.Conv(outputs, outputs, kernel_init=layers.zeros, rngs=rngs)
        projected = inputs != outputs or (resample and style.project)
        self.shortcut = style.linear(inputs, outputs, rngs=rngs) if projected else None
        self.attention = layers.Attention(
            outputs, heads=heads, groups=self.norm_out.groups, epsilon=style.epsilon, kernel_init=style.attention_init,
            bias_init=style.bias_init(outputs), rngs=rngs,
        ) if heads else None  # fmt: skip
        self.words = layers.CrossAttention(outputs, words, heads=max(1, heads), rngs=rngs) if words else None

    def __call__(self, x: Array, condition: Array, words: Array | None, key: Array | None) -> Array:
        return layers.rematerialise(self.remat, self._apply)(x, condition, words, key)

    def _apply(self, x: Array, condition: Array, words: Array | None, key: Array | None) -> Array:
        style, told = self.style, self.condition(condition)[:, None, None]
        h = self.conv_in(self._resampled(nnx.silu(self.norm_in(x))))
        if style.adaptive:
            scale, shift = jnp.split(told, 2, axis=-1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + told)
        h = self.conv_out(layers.dropout(nnx.silu(h), self.dropout, key))
        x = self._resampled(x)
        h = (h + (x if self.shortcut is None else self.shortcut(x))) * style.scale
        h = h if self.attention is None else self.attention(h) * style.scale
        if self.words is None or words is None:
            return h
        return self.words(h.reshape(len(h), -1, h.shape[-1]), words).reshape(h.shape)

    def _resampled(self, x: Array) -> Array:
        if not self.resample:
            return x
        return halved(x, self.taps) if self.resample == 'down' else doubled(x, self.taps)


class Pyramid(nnx.Module):
    """A picture that shrinks alongside the network: a convolution, then `halved`, with one padding for both."""

    def __init__(self, inputs: int, outputs: int, *, taps: tuple[int, ...], style: Style, rngs: nnx.Rngs):
        self.taps, self.conv = taps, style.conv(inputs, outputs, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        pad = centred(self.taps)
        return halved(self.conv(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))), self.taps, pad=0)


class ResampledUNet(nnx.Module):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels.

    Args:
      size: height and width of the images, divisible by 2 ** (len(multipliers) - 1).
      forms: the forms of the conditions, by name.
      conditioning: embeds times and conditions, as vectors of length 4 · channels.
      heads: number of channels of a block → number of its attention heads.
      taps: the taps of the filter that is applied where the resolution changes.
      pyramid: feed the images in again at each lower resolution.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], conditioning: layers.Conditioning, *,
        style: Style, channels: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...],
        heads: Callable[[int], int], taps: tuple[int, ...], pyramid: bool, dropout: float, dtype: str, remat: str,
        outputs: int, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dtype, self.forms, self.style = layers.compute_dtype(dtype), tuple(forms.items()), style
        self.conditioning = conditioning
        tokens = any(form.type in layers.READ for form in forms.values())
        width_of_words = channels * max(multipliers) if tokens else 0
        options: dict[str, Any] = {
            'condition': 4 * channels, 'words': width_of_words, 'taps': taps, 'dropout': dropout, 'remat': remat,
            'style': style, 'rngs': rngs,
        }  # fmt: skip

        def block(inputs: int, outputs: int, attend: bool = False, resample: str = '') -> Block:
            return Block(inputs, outputs, resample=resample, heads=heads(outputs) if attend else 0, **options)

        width = channels * (multipliers[0] if style.wide_start else 1)
        seen, skips = image_channels + layers.channels_of(forms), [width]
        self.conv_in = style.conv(seen, width, rngs=rngs)
        down, up, pyramids = [], [], []
        for depth, multiplier in enumerate(multipliers):
            if depth:
                down.append(block(width, width, resample='down'))
                skips.append(width)
                pyramids += [Pyramid(seen, width, taps=taps, style=style, rngs=rngs)] if pyramid else []
                seen = width
            for _ in range(blocks):
                down.append(block(width, channels * multiplier, size >> depth in attention))
                width = channels * multiplier
                skips.append(width)
        self.down, self.pyramids = nnx.List(down), nnx.List(pyramids)
        self.middle = nnx.List([block(width, width, attend=True), block(width, width)])
        for depth, multiplier in reversed(list(enumerate(multipliers))):
            if depth < len(multipliers) - 1:
                up.append(block(width, width, resample='up'))
            for index in range(blocks + 1):
                attend = size >> depth in attention and (style.attend_up or index == blocks)
                up.append(block(width + skips.pop(), channels * multiplier, attend))
                width = channels * multiplier
        self.up = nnx.List(up)
        self.norm_out = style.norm(width)
        self.conv_out = layers.Conv(width, outputs * image_channels, kernel_init=layers.zeros, rngs=rngs)
        self.words = layers.Words(forms, width_of_words, rngs=rngs)

    def __call__(
        self, x: Array, t: Array, given: Given = None, key: Array | None = None, s: Array | None = None
    ) -> Array:
        """x (batch, height, width, channels), t and s (batch,) in [0, 1], conditions or None; `key` turns dropout on.

        s defaults to t."""
        told = self.conditioning(t, given, s).astype(self.dtype), self.words(given, len(x))
        seen = layers.with_channels(x, dict(self.forms), given).astype(self.dtype)
        h = self.conv_in(seen)
        skips, pyramids = [h], list(self.pyramids)
        for index, block in enumerate(self.down):
            h = block(h, *told, numbered(key, index))
            if block.resample and pyramids:
                h = seen = (h + pyramids.pop(0)(seen)) * self.style.scale
            skips.append(h)
        for index, block in enumerate(self.middle):
            h = block(h, *told, numbered(key, 1000 + index))
        for index, block in enumerate(self.up):
            h = h if block.resample else jnp.concatenate([h, skips.pop()], axis=-1)
            h = block(h, *told, numbered(key, 2000 + index))
        return self.conv_out(nnx.silu(self.norm_out(h))).astype(jnp.float32)


def silent_null(init: Callable[[int], layers.Initializer]) -> layers.Initializer:
    """An initialiser of class vectors: `init`(number of classes), but zero for the vector that stands for no class."""

    def draw(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32, *_: Any) -> Array:
        return init(shape[0] - 1)(key, shape, dtype).at[-1].set(0)

    return draw
