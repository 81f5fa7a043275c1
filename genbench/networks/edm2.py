"""EDM2's magnitude-preserving U-Net: T. Karras et al., Analyzing and Improving the Training Dynamics of Diffusion
Models, 2024, config G (figure 21).

Activations keep a variance of one from layer to layer without group normalisation. Weights have the same norm after
every update, so that the learning rate alone determines how fast they turn. Only the gains of the blocks and of the
output, which start at zero, change magnitudes. There are no biases.

The sizes XS, S, M, L, XL and XXL have 128, 192, 256, 320, 384 and 448 channels, times (1, 2, 3, 4), with 3 blocks,
attention at 16 and 8 pixels, and 64 channels a head. All constants are those of the official code.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given, told
from genbench.errors import UserError
from genbench.networks import adm, layers, resampled
from genbench.networks.constraints import Constrained
from genbench.networks.ncsnpp import Frozen
from genbench.networks.unet import numbered

Array = jax.Array

DEFAULTS = {
    **adm.DEFAULTS,
    'time_scale': 1000.0,  # of the times of the schedule `edm`, which become ¼ ln σ; for times up to 1 use about 1
}
RANGES = dict(adm.RANGES)

EPSILON = 1e-4
SILU_SCALE = 0.596  # √E silu(z)² for normal z (equation 81)
BRANCH, CONDITION = 0.3, 0.5  # t of the sum with a block's branch, and with a condition (figure 21)
LIMIT = 256.0  # of activations, which half precision needs
EMBEDDED = ('classes', 'vector')  # types of conditions that are added to the embedding of time


def unit(x: Array, axis: int | tuple[int, ...]) -> Array:
    """x divided by its root mean square over these axes, with statistics in float32."""
    square = jnp.square(x.astype(jnp.float32)).mean(axis, keepdims=True)
    size = EPSILON + jnp.sqrt(jnp.maximum(square, 1e-20))  # the slope of √ is finite, even at zero
    return x / size.astype(x.dtype)


def silu(x: Array) -> Array:
    """SiLU with outputs of variance one for normal inputs (equation 81)."""
    return nnx.silu(x) / SILU_SCALE


def mixed(a: Array, b: Array, t: float) -> Array:
    """(1 − t) a + t b, scaled to variance one for independent a and b of variance one (equation 88)."""
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def joined(a: Array, b: Array) -> Array:
    """a and b concatenated, so that both contribute equally whatever their channels (equation 103, t = 0.5)."""
    total = a.shape[-1] + b.shape[-1]
    return jnp.concatenate([math.sqrt(total / 2 / x.shape[-1]) * x for x in (a, b)], axis=-1)


class Weights(Constrained):
    """A layer without bias that keeps the variance of its input: x (…, inputs) → (…, outputs) (equation 47).

    Each output's weights have the root mean square one after every update (forced weight normalisation, equation 66).
    They are normalised once more where they are used, so that their gradient is orthogonal to them.

    Args:
      window: the height and width of a convolution's window. 0: a product, for x with any number of axes.
    """

    def __init__(self, inputs: int, outputs: int, *, window: int = 0, rngs: nnx.Rngs):
        shape = (*((window, window) if window else ()), inputs, outputs)
        self.kernel = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.constrain()

    def constrain(self) -> None:
        self.kernel[...] = self._normalised()

    def _normalised(self) -> Array:
        return unit(self.kernel[...], tuple(range(self.kernel.ndim - 1)))

    def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
        *window, inputs, _ = self.kernel.shape
        kernel = (self._normalised() * (gain / math.sqrt(inputs * math.prod(window)))).astype(x.dtype)
        if not window:
            return x @ kernel
        return layers.convolve(x, kernel)


class Fourier(nnx.Module):
    """Numbers (batch,) → waves of random frequencies and phases, (batch, size), with variance one (equation 75)."""

    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.frequencies = Frozen(2 * math.pi * jax.random.normal(rngs.params(), (size,)))
        self.phases = Frozen(2 * math.pi * jax.random.uniform(rngs.params(), (size,)))

    def __call__(self, x: Array) -> Array:
        return math.sqrt(2) * jnp.cos(x[:, None] * self.frequencies[...] + self.phases[...])


class Embedding(nnx.Module):
    """Times and conditions → the vector (batch, outputs) that blocks are conditioned on.

    A zero vector means that nothing is known. In figure 21 there are only classes. Here vectors and the distance to a
    second time are mixed in with the same weights.
    """

    def __init__(
        self, features: int, outputs: int, forms: Mapping[str, Form], *, time_scale: float, second_time: bool,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.time_scale = time_scale
        self.forms = tuple((name, form) for name, form in forms.items() if form.type in EMBEDDED)
        self.waves = Fourier(features, rngs=rngs)
        self.time = Weights(features, outputs, rngs=rngs)
        self.entries = nnx.Dict({
            name: Weights(form.size or form.shape[0], outputs, rngs=rngs) for name, form in self.forms
        })  # fmt: skip
        self.distance = Weights(features, outputs, rngs=rngs) if second_time else None

    def __call__(self, t: Array, given: Given, s: Array | None = None) -> Array:
        h = self.time(self.waves(self.time_scale * t))
        if self.distance is not None:
            ahead = jnp.zeros_like(t) if s is None else t - s
            h = mixed(h, self.distance(self.waves(self.time_scale * ahead)), CONDITION)
        elif s is not None:
            raise ValueError('This network was not built to take a second time.')
        for name, form in self.forms:
            value = told(given, name, form, len(t))
            seen = math.sqrt(form.size) * jax.nn.one_hot(value, form.size) if form.size else value
            h = mixed(h, self.entries[name](seen), CONDITION)
        return silu(h)


class Attention(nnx.Module):
    """Self-attention with queries, keys and values of length √size per head (cosine attention, figure 21)."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.inputs = Weights(width, 3 * width, rngs=rngs)
        self.output = Weights(width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        qkv = self.inputs(x).reshape(batch, height * width, 3, self.heads, channels // self.heads)
        return mixed(x, self.output(layers.attend(unit(qkv, -1)).reshape(x.shape)), BRANCH)


class Block(nnx.Module):
    """A residual block of the encoder or the decoder, optionally followed by attention.

    Args:
      encodes: project and normalise pixels before the branch. A block of the decoder only projects its shortcut.
      resample: 'down', 'up' or ''.
      heads: the number of attention heads; 0 for no attention.
    """

    def __init__(
        self, inputs: int, outputs: int, *, condition: int, encodes: bool, resample: str, heads: int, dropout: float,
        remat: str, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.encodes, self.resample, self.dropout = encodes, resample, dropout
        self.remat = layers.check_remat(remat)
        self.gain = nnx.Param(jnp.zeros(()))
        self.conv_in = Weights(outputs if encodes else inputs, outputs, window=3, rngs=rngs)
        self.condition = Weights(condition, outputs, rngs=rngs)
        self.conv_out = Weights(outputs, outputs, window=3, rngs=rngs)
        self.shortcut = Weights(inputs, outputs, rngs=rngs) if inputs != outputs else None
        self.attention = Attention(outputs, heads, rngs=rngs) if heads else None

    def __call__(self, x: Array, condition: Array, key: Array | None) -> Array:
        return layers.rematerialise(self.remat, self._apply)(x, condition, key)

    def _apply(self, x: Array, condition: Array, key: Array | None) -> Array:
        if self.resample:
            x = resampled.halved(x, (1, 1)) if self.resample == 'down' else resampled.doubled(x, (1, 1))
        projected = x if self.shortcut is None else self.shortcut(x)
        x, straight = (unit(projected, -1),) * 2 if self.encodes else (x, projected)
        scale = 1 + self.condition(condition, self.gain[...])
        h = silu(self.conv_in(silu(x)) * scale[:, None, None])
        h = mixed(straight, self.conv_out(layers.dropout(h, self.dropout, key)), BRANCH)
        h = h if self.attention is None else self.attention(h)
        return jnp.clip(h, -LIMIT, LIMIT)


class EDM2(nnx.Module):
    """(x_t, t, given) → an array shaped like x_t, or with `outputs` times its channels; zero when fresh.

    x_t should have variance one, as the preconditioned prediction makes it. Pictures become additional channels.

    Args:
      size: height and width of the images, divisible by 2 ** (len(multipliers) - 1).
      forms: the forms of the conditions, by name.
      second_time: build the network for calls with a time s before t.

    Raises:
      UserError: the heads do not divide the channels of a block that attends, or a condition has another type.
    """

    def __init__(
        self, size: int, image_channels: int, forms: Mapping[str, Form], *, channels: int, multipliers: tuple[int, ...],
        blocks: int, attention: tuple[int, ...], head_width: int, dropout: float, time_scale: float = 1000.0,
        dtype: str = 'float32', remat: str = 'none', second_time: bool = False, outputs: int = 1, rngs: nnx.Rngs,
    ):  # fmt: skip
        for name, form in forms.items():
            if form.type not in (*EMBEDDED, 'image'):
                raise UserError(f'The network edm2 takes classes, vectors and pictures, but the condition {name} comes '
                                f'as {form.type}; use a unet or a dit.')  # fmt: skip
        widths = [channels * multiplier for multiplier in multipliers]
        self.dtype, self.forms = layers.compute_dtype(dtype), tuple(forms.items())
        self.embedding = Embedding(
            widths[0], max(widths), forms, time_scale=time_scale, second_time=second_time, rngs=rngs
        )
        shared: dict[str, Any] = {'condition': max(widths), 'dropout': dropout, 'remat': remat, 'rngs': rngs}

        def block(inputs: int, outputs: int, encodes: bool, attend: bool = False, resample: str = '') -> Block:
            heads = adm.heads(head_width, outputs) if attend else 0
            return Block(inputs, outputs, encodes=encodes, resample=resample, heads=heads, **shared)

        width, skips = widths[0], [widths[0]]
        self.conv_in = Weights(image_channels + layers.channels_of(forms) + 1, width, window=3, rngs=rngs)
        down: list[Block] = []
        up: list[Block] = []
        joins: list[bool] = []
        for depth, wider in enumerate(widths):
            attend = size >> depth in attention
            down += [block(width, width, True, resample='down')] if depth else []
            down += [block(width if not index else wider, wider, True, attend) for index in range(blocks)]
            skips += [*([width] if depth else []), *[wider] * blocks]
            width = wider
        middle = [block(width, width, False, attend=True), block(width, width, False)]
        for depth, narrower in reversed(list(enumerate(widths))):
            up += middle if depth == len(widths) - 1 else [block(width, width, False, resample='up')]
            joins += [False] * (len(up) - len(joins))
            for _ in range(blocks + 1):
                up.append(block(width + skips.pop(), narrower, False, size >> depth in attention))
                width = narrower
            joins += [True] * (blocks + 1)
        self.down, self.up, self.joins = nnx.List(down), nnx.List(up), tuple(joins)
        self.conv_out = Weights(width, outputs * image_channels, window=3, rngs=rngs)
        self.gain = nnx.Param(jnp.zeros(()))

    def __call__(
        self, x: Array, t: Array, given: Given = None, key: Array | None = None, s: Array | None = None
    ) -> Array:
        """x (batch, height, width, channels), t and s (batch,), conditions or None; `key` turns dropout on.

        s defaults to t."""
        condition = self.embedding(t, given, s).astype(self.dtype)
        seen = layers.with_channels(x, dict(self.forms), given)
        h = self.conv_in(jnp.concatenate([seen, jnp.ones_like(seen[..., :1])], axis=-1).astype(self.dtype))
        skips = [h]
        for index, block in enumerate(self.down):
            h = block(h, condition, numbered(key, index))
            skips.append(h)
        for index, (block, joins) in enumerate(zip(self.up, self.joins, strict=True)):
            h = block(joined(h, skips.pop()) if joins else h, condition, numbered(key, 1000 + index))
        return self.conv_out(h, self.gain[...]).astype(jnp.float32)
