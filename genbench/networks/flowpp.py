"""Flow++: couplings by distribution functions of mixtures of logistics, with networks of convolutions and attention.

J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, Flow++: Improving Flow-Based Generative Models with Variational
Dequantization and Architecture Design, 2019, and its official code. `Flow` is the flow of images, and `Dequantiser` the
conditional flow of the noise that dequantises them.

Layers map pairs of halves, (batch, height, width, 2 · channels), to pairs and log |det| (batch,). What the code calls
a checkerboard puts even columns into the first half and odd columns into the second.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.invertible import Logit, squeeze, unsqueeze
from genbench.networks.reversible import through
from genbench.ranges import COUNT, SHARE, Range

Array = jax.Array

DEFAULTS = {
    'channels': 32,
    'blocks': 2,  # of a convolution and an attention in each coupling
    'components': 8,  # logistics of a mixture
    'heads': 4,
    'dropout': 0.0,
    'margin': 0.05,  # α of the logits, as in `couplings`
    'reversible': False,  # as in `couplings`
}
RANGES = {
    'channels': COUNT,
    'blocks': COUNT,
    'components': COUNT,
    'heads': COUNT,
    'dropout': SHARE,
    'margin': Range(0, 0.5, above=True, below=True),
}
COLUMNS, CHANNELS, LAST = 4, 2, 3  # couplings of columns, then, after a squeeze, of channels and again of columns
HALVINGS = 40  # of the interval that contains the inverse of a mixture
LEAST = -7.0  # log-scale of a logistic of a mixture, as in the code
WEAK = 0.1  # deviation of the outputs of gates and networks on the first batch; 1 for other layers


class Conv(nnx.Module):
    """A convolution whose outputs have mean 0 and a given deviation on the first batch, with `fit`."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, deviation: float = 1.0, rngs: nnx.Rngs):
        self.deviation = deviation
        self.kernel = nnx.Param(0.05 * jax.random.normal(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array, fit: bool) -> Array:
        def apply() -> Array:
            return layers.convolve(x, self.kernel[...])

        if fit:
            y = apply()
            scale = self.deviation * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-8)
            self.kernel[...], self.bias[...] = self.kernel[...] * scale, -y.mean((0, 1, 2)) * scale
        return apply() + self.bias[...]


def both(x: Array) -> Array:
    """ELU of x and of −x, twice the channels."""
    return nnx.elu(jnp.concatenate([x, -x], axis=-1))


def gate(x: Array) -> Array:
    a, b = jnp.split(x, 2, axis=-1)
    return a * nnx.sigmoid(b)


class GatedConv(nnx.Module):
    """x plus a gated convolution of it, which may see a context.

    Args:
      window: the side of the second convolution.
    """

    def __init__(self, width: int, context: int, window: int, dropout: float, *, rngs: nnx.Rngs):
        self.dropout = dropout
        self.hidden = Conv(2 * width, width, rngs=rngs)
        self.context = Conv(2 * context, width, kernel=1, rngs=rngs) if context else None
        self.output = Conv(2 * width, 2 * width, kernel=window, deviation=WEAK, rngs=rngs)

    def __call__(self, x: Array, context: Array | None, key: Array | None, fit: bool) -> Array:
        h = self.hidden(both(x), fit)
        if self.context is not None and context is not None:
            h = h + self.context(both(context), fit)
        return x + gate(self.output(layers.dropout(both(h), self.dropout, key), fit))


class GatedAttention(nnx.Module):
    """x plus gated self-attention over its places."""

    def __init__(self, width: int, heads: int, dropout: float, *, rngs: nnx.Rngs):
        self.heads, self.dropout = heads, dropout
        self.inputs = Conv(width, 3 * width, kernel=1, rngs=rngs)
        self.output = Conv(width, 2 * width, kernel=1, deviation=WEAK, rngs=rngs)

    def __call__(self, x: Array, places: Array, key: Array | None, fit: bool) -> Array:
        qkv = self.inputs(x + places, fit)
        qkv = qkv.reshape(len(x), x.shape[1] * x.shape[2], 3, self.heads, x.shape[3] // self.heads)
        h = layers.dropout(layers.attend(qkv).reshape(x.shape), self.dropout, key)
        return x + gate(self.output(h, fit))


class Network(nnx.Module):
    """The network of a coupling: blocks of a gated convolution and gated attention, each before a normalisation."""

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, *, width: int, blocks: int, heads: int, dropout: float,
        context: int, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.places = nnx.Param(0.01 * jax.random.normal(rngs.params(), (*shape[:2], width)))
        self.conv_in = Conv(shape[2], width, rngs=rngs)
        self.convs = nnx.List([GatedConv(width, context, 1, dropout, rngs=rngs) for _ in range(blocks)])
        self.attentions = nnx.List([GatedAttention(width, heads, dropout, rngs=rngs) for _ in range(blocks)])
        self.norms = nnx.List([nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) for _ in range(2 * blocks)])
        self.conv_out = Conv(width, outputs, deviation=WEAK, rngs=rngs)

    def __call__(self, x: Array, context: Array | None, key: Array | None, fit: bool) -> Array:
        h = self.conv_in(x, fit)
        for index, (conv, attention) in enumerate(zip(self.convs, self.attentions, strict=True)):
            keys = (None, None) if key is None else jax.random.split(jax.random.fold_in(key, index))
            h = self.norms[2 * index](conv(h, context, keys[0], fit))
            h = self.norms[2 * index + 1](attention(h, self.places[...], keys[1], fit))
        return self.conv_out(h, fit)


def logit_of_mixture(x: Array, weights: Array, means: Array, log_scales: Array) -> tuple[Array, Array]:
    """logit F(x) and log dlogit F / dx (…) for the distribution function F of a mixture of logistics (…, components).

    Args:
      weights: logits of the weights.
    """
    weights, place = jax.nn.log_softmax(weights), (x[..., None] - means) * jnp.exp(-log_scales)
    below, above = (jax.nn.logsumexp(weights + nnx.log_sigmoid(sign * place), axis=-1) for sign in (1, -1))
    log_p = weights - log_scales + nnx.log_sigmoid(place) + nnx.log_sigmoid(-place)
    return below - above, jax.nn.logsumexp(log_p, axis=-1) - below - above


def inverse_of_mixture(y: Array, weights: Array, means: Array, log_scales: Array) -> Array:
    """x with logit F(x) = y, by bisection between the least and the greatest y-quantile of the components."""
    quantiles = means + jnp.exp(log_scales) * y[..., None]

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        inside = logit_of_mixture(middle, weights, means, log_scales)[0] < y
        return jnp.where(inside, middle, ends[0]), jnp.where(inside, ends[1], middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (quantiles.min(-1), quantiles.max(-1)))
    return (low + high) / 2


class Step(nnx.Module):
    """Normalisation of every value, a matrix for the channels of each half, and a coupling; then the halves swap.

    A coupling leaves the first half and turns the second into exp(s) logit F(x) + t, where F is the distribution
    function of a mixture of logistics, and s, t and the mixture see the first half (section 3.2).

    Args:
      shape: of one half.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, components: int, width: int, blocks: int, heads: int, dropout: float,
        context: int = 0, rngs: nnx.Rngs,
    ):  # fmt: skip
        rows, columns, channels = shape
        self.components = components
        self.scale = nnx.Param(jnp.ones((rows, columns, 2 * channels)))
        self.shift = nnx.Param(jnp.zeros((rows, columns, 2 * channels)))
        noise = 0.001 * jax.random.normal(rngs.params(), (2, channels, channels))
        self.matrices = nnx.Param(jnp.eye(channels) + noise)
        self.network = Network(
            shape, channels * (2 + 3 * components), width=width, blocks=blocks, heads=heads, dropout=dropout,
            context=context, rngs=rngs,
        )  # fmt: skip

    def _mixed(self, x: Array, matrices: Array) -> tuple[Array, Array]:
        """Both halves times their matrices."""
        halves = jnp.split(x, 2, axis=-1)
        first, second = (
            jnp.matmul(half, matrix, precision='highest') for half, matrix in zip(halves, matrices, strict=True)
        )
        return first, second

    def _affine(self, kept: Array, context: Array | None, key: Array | None, fit: bool) -> tuple[Array, ...]:
        h = self.network(kept, context, key, fit).reshape(*kept.shape, -1)
        weights, means, log_scales = jnp.split(h[..., 2:], 3, axis=-1)
        return jnp.tanh(h[..., 0]), h[..., 1], weights, means, jnp.maximum(log_scales, LEAST)

    def _scale(self) -> Array:
        return jnp.maximum(self.scale[...], 1e-10)

    def __call__(
        self, x: Array, context: Array | None = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        if fit:
            self.scale[...] = jax.lax.rsqrt(x.var(0) + 1e-8)
            self.shift[...] = -x.mean(0) * self.scale[...]
        x = x * self._scale() + self.shift[...]
        log_det = jnp.log(self._scale()).sum()
        log_det += x.shape[1] * x.shape[2] * jnp.linalg.slogdet(self.matrices[...])[1].sum()
        kept, moved = self._mixed(x, self.matrices[...])
        log_scale, shift, *mixture = self._affine(kept, context, key, fit)
        moved, slope = logit_of_mixture(moved, *mixture)
        y = jnp.concatenate([moved * jnp.exp(log_scale) + shift, kept], axis=-1)
        return y, log_det + (slope + log_scale).sum((1, 2, 3))

    def inverse(self, y: Array, context: Array | None = None) -> Array:
        moved, kept = jnp.split(y, 2, axis=-1)
        log_scale, shift, *mixture = self._affine(kept, context, None, False)
        moved = inverse_of_mixture((moved - shift) * jnp.exp(-log_scale), *mixture)
        mixed = self._mixed(jnp.concatenate([kept, moved], axis=-1), jnp.linalg.inv(self.matrices[...]))
        return (jnp.concatenate(mixed, axis=-1) - self.shift[...]) / self._scale()


def by_columns(x: Array) -> Array:
    """Images to pairs of their even and odd columns, (batch, height, width / 2, 2 · channels)."""
    return x.reshape(*x.shape[:2], x.shape[2] // 2, -1)


def columns_back(x: Array) -> Array:
    return x.reshape(*x.shape[:2], 2 * x.shape[2], -1)


def several(
    count: int, shape: tuple[int, int, int], *, channels: int, blocks: int, components: int, heads: int,
    dropout: float = 0.0, context: int = 0, rngs: nnx.Rngs,
) -> nnx.List:  # fmt: skip
    """Steps on pairs whose halves have this shape."""
    if channels % heads:
        raise UserError(f'network.channels is {channels}; it should be divisible by network.heads ({heads}).')
    return nnx.List([
        Step(shape, width=channels, blocks=blocks, components=components, heads=heads, dropout=dropout,
             context=context, rngs=rngs)
        for _ in range(count)
    ])  # fmt: skip


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training.

    Calls have the form of those to `couplings.Flow`. Conditions are refused: the paper has none.

    Raises:
      UserError: the images cannot be halved, or there are conditions.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, margin: float, reversible: bool,
        dropout: float, rngs: nnx.Rngs, **options: Any,
    ):  # fmt: skip
        rows, columns, depth = shape
        if rows % 2 or columns % 4:
            raise UserError(f'network.name=flowpp needs images whose height is divisible by 2 and whose width is '
                            f'divisible by 4; these have {rows}×{columns}.')  # fmt: skip
        if forms:
            raise UserError('network.name=flowpp takes no conditions; use couplings, real_nvp or tarflow.')
        if reversible and dropout:
            raise UserError('network.reversible is True, and steps with dropout have no inverse; use '
                            'network.dropout=0.')  # fmt: skip
        self.logit, self.shape, self.reversible = Logit(margin), shape, reversible
        options |= {'dropout': dropout, 'rngs': rngs}
        self.columns = several(COLUMNS, (rows, columns // 2, depth), **options)
        self.channels = several(CHANNELS, (rows // 2, columns // 2, 2 * depth), **options)
        self.last = several(LAST, (rows // 2, columns // 4, 4 * depth), **options)

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        (x, log_det), number = self.logit(x), 0
        x = by_columns(x)
        for steps in (self.columns, self.channels, self.last):
            if steps is self.channels:
                x = squeeze(columns_back(x))
            elif steps is self.last:
                x = by_columns(x)
            if self.reversible and not fit:
                x, change = through(steps, x, None)
                log_det += change
                continue
            for step in steps:
                x, change = step(x, None, None if key is None else jax.random.fold_in(key, number), fit)
                log_det, number = log_det + change, number + 1
        return columns_back(x).reshape(len(x), -1), log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        rows, columns, depth = self.shape
        x = by_columns(z.reshape(len(z), rows // 2, columns // 2, 4 * depth))
        for steps in (self.last, self.channels, self.columns):
            for step in reversed(steps):
                x = step.inverse(x)
            if steps is self.last:
                x = columns_back(x)
            elif steps is self.channels:
                x = by_columns(unsqueeze(x))
        return self.logit.inverse(columns_back(x))


class Dequantiser(nnx.Module):
    """Normal noise → places u of pixels in their bins, in (0, 1), by a flow that sees the images (section 3.1).

    The context is a shallow network of the image.
    """

    CONTEXT, BLOCKS = 32, 3

    def __init__(
        self, shape: tuple[int, int, int], *, channels: int, blocks: int, components: int, heads: int, rngs: nnx.Rngs
    ):
        rows, columns, depth = shape
        if columns % 2:
            raise UserError(f'family.dequantisation=variational needs images of even width; these have {columns}.')
        self.context = Conv(2 * depth, self.CONTEXT, rngs=rngs)
        self.blocks = nnx.List([GatedConv(self.CONTEXT, 0, 3, 0.0, rngs=rngs) for _ in range(self.BLOCKS)])
        self.steps = several(
            COLUMNS, (rows, columns // 2, depth), channels=channels, blocks=blocks, components=components,
            heads=heads, context=self.CONTEXT, rngs=rngs,
        )  # fmt: skip

    def __call__(self, images: Array, noise: Array, fit: bool = False) -> tuple[Array, Array]:
        """u (batch, *shape), and log q(u) (batch,).

        Args:
          images: in [−1, 1], at the centres of their bins.
          noise: standard normal, shaped like the images.
        """
        context = self.context(by_columns(images / 2), fit)
        for block in self.blocks:
            context = block(context, None, None, fit)
        x, log_q = by_columns(noise), jax.scipy.stats.norm.logpdf(noise).sum((1, 2, 3))
        for step in self.steps:
            x, change = step(x, context, None, fit)
            log_q -= change
        log_q -= (nnx.log_sigmoid(x) + nnx.log_sigmoid(-x)).sum((1, 2, 3))
        return columns_back(nnx.sigmoid(x)), log_q
