"""PixelCNN++: convolutions that see the pixels above and to the left.

T. Salimans, A. Karpathy, X. Chen, D. Kingma, PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications, 2017; A. van den Oord et al., Conditional Image Generation with PixelCNN Decoders,
2016 (two streams without a blind spot, gates); T. Salimans, D. Kingma, Weight Normalization, 2016.

Two streams of features run through the network. The 'down' stream sees the rows above a pixel, and the 'right' stream
also sees the pixels to its left in the same row. Convolutions look up and left from a feature, and the first ones are
shifted by one pixel, so no feature sees its own pixel. The paper's text leaves sizes of windows and the order of blocks
to its code, which this module follows.
"""

import itertools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.in_order import InOrder
from genbench.ranges import COUNT, SHARE

Array = jax.Array
Streams = tuple[Array, Array]  # 'down' and 'right', (batch, height, width, channels)

DEFAULTS = {
    'channels': 32,
    'blocks': 2,  # residual blocks of each stream at a resolution; above the lowest, one more on the way back
    'scales': 2,  # number of resolutions, each half of the one before
    'dropout': 0.0,
}
RANGES = {'channels': COUNT, 'blocks': COUNT, 'scales': COUNT, 'dropout': SHARE}
DIRECTION = nnx.initializers.normal(0.05)  # of kernels, whose lengths weight normalisation sets


def concat_elu(x: Array) -> Array:
    """ELU of x and of −x, side by side."""
    return nnx.elu(jnp.concatenate([x, -x], axis=-1))


class Conv(nnx.Module):
    """A convolution whose window ends at the row of its output, with normalised weights w = g v / ‖v‖.

    Args:
      window: height and width. The window of the 'down' stream is centred on the output's column, and that of the
        'right' stream ends there.
      stride: 2 halves the resolution; −2 doubles it, as the transpose of a convolution with stride 2.
      scale: standard deviation of the outputs after data-dependent initialisation.
    """

    def __init__(
        self, inputs: int, outputs: int, window: tuple[int, int] = (1, 1), *, centred: bool = False, stride: int = 1,
        scale: float = 1.0, rngs: nnx.Rngs,
    ):  # fmt: skip
        height, width = window
        right = (width - 1) // 2 if centred else 0
        doubles = int(stride < 0)
        self.padding = ((height - 1, doubles), (width - 1 - right, right + doubles))
        self.stride, self.dilation, self.std = max(stride, 1), max(-stride, 1), scale
        self.kernel = nnx.Param(DIRECTION(rngs.params(), (*window, inputs, outputs)))
        self.scale = nnx.Param(jnp.full(outputs, scale))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array, fit: bool = False) -> Array:
        direction = self.kernel[...] / jnp.sqrt(jnp.square(self.kernel[...]).sum((0, 1, 2)))
        y = layers.convolve(x, direction, (self.stride,) * 2, self.padding, lhs_dilation=(self.dilation,) * 2)
        if fit:
            self.scale[...] = self.std * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-8)
            self.bias[...] = -y.mean((0, 1, 2)) * self.scale[...]
        return y * self.scale[...] + self.bias[...]


class Block(nnx.Module):
    """x + a ⊙ σ(b), with a and b from two convolutions and a short-cut (section 2.4; gates of van den Oord et al.).

    Args:
      window, centred: of the convolutions.
      shortcut: the number of channels that enter between the convolutions from elsewhere.
    """

    def __init__(
        self, channels: int, forms: Mapping[str, Form], *, window: tuple[int, int], centred: bool, shortcut: int,
        dropout: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.dropout = dropout
        self.conv_in = Conv(2 * channels, channels, window, centred=centred, rngs=rngs)
        self.shortcut = Conv(2 * shortcut, channels, rngs=rngs) if shortcut else None
        self.conv_out = Conv(2 * channels, 2 * channels, window, centred=centred, scale=0.1, rngs=rngs)
        self.classes = layers.Classes(forms, 2 * channels, rngs=rngs)

    def __call__(self, x: Array, other: Array | None, given: Given, key: Array | None, fit: bool) -> Array:
        h = self.conv_in(concat_elu(x), fit)
        if self.shortcut is not None and other is not None:
            h = h + self.shortcut(concat_elu(other), fit)
        h = self.conv_out(layers.dropout(concat_elu(h), self.dropout, key), fit)
        classes = self.classes(given)
        if classes is not None:
            h = h + classes[:, None, None]
        a, b = jnp.split(h, 2, axis=-1)
        return x + a * nnx.sigmoid(b)


class Pair(nnx.Module):
    """A block of each stream. The 'right' stream also sees the 'down' stream and, on the way back, its short-cut."""

    def __init__(self, channels: int, forms: Mapping[str, Form], *, back: bool, dropout: float, rngs: nnx.Rngs):
        def block(window: tuple[int, int], centred: bool, shortcut: int) -> Block:
            return Block(channels, forms, window=window, centred=centred, shortcut=shortcut, dropout=dropout, rngs=rngs)

        self.down = block((2, 3), True, channels * back)
        self.right = block((2, 2), False, channels * (1 + back))

    def __call__(
        self, streams: Streams, skips: Streams | None, given: Given, keys: Iterator[Array | None], fit: bool
    ) -> Streams:
        down = self.down(streams[0], skips[0] if skips else None, given, next(keys), fit)
        other = jnp.concatenate([down, skips[1]], axis=-1) if skips else down
        return down, self.right(streams[1], other, given, next(keys), fit)


class Resampling(nnx.Module):
    """Halves (stride 2) or doubles (stride −2) the resolution of both streams."""

    def __init__(self, channels: int, stride: int, *, rngs: nnx.Rngs):
        self.down = Conv(channels, channels, (2, 3), centred=True, stride=stride, rngs=rngs)
        self.right = Conv(channels, channels, (2, 2), stride=stride, rngs=rngs)

    def __call__(self, streams: Streams, fit: bool) -> Streams:
        return self.down(streams[0], fit), self.right(streams[1], fit)


class PixelCNN(InOrder, nnx.Module):
    """Encoded images (batch, *shape) → `outputs` per pixel; a step is a pixel with all its channels.

    Raises:
      UserError: the images cannot be halved that often.
    """

    def __init__(
        self, shape: tuple[int, int, int], outputs: int, forms: Mapping[str, Form], *,
        channels: int, blocks: int, scales: int, dropout: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        height, width, depth = shape
        if height % (factor := 2 ** (scales - 1)) or width % factor:
            raise UserError(
                f'A PixelCNN of {scales} resolutions (network.scales) needs images whose height and width are '
                f'divisible by {factor}; these have {height}×{width}.'
            )
        self.steps = height * width

        def level(count: int, back: bool) -> nnx.List:
            return nnx.List([Pair(channels, forms, back=back, dropout=dropout, rngs=rngs) for _ in range(count)])

        self.above = Conv(depth + 1, channels, (2, 3), centred=True, rngs=rngs)
        self.row_above = Conv(depth + 1, channels, (1, 3), centred=True, rngs=rngs)
        self.left = Conv(depth + 1, channels, (2, 1), rngs=rngs)
        self.inward = nnx.List([level(blocks, False) for _ in range(scales)])
        self.halvings = nnx.List([Resampling(channels, 2, rngs=rngs) for _ in range(scales - 1)])
        self.outward = nnx.List([level(blocks + (scale > 0), True) for scale in range(scales)])
        self.doublings = nnx.List([Resampling(channels, -2, rngs=rngs) for _ in range(scales - 1)])
        self.output = Conv(channels, outputs, rngs=rngs)

    def __call__(self, x: Array, given: Given = None, mask: Array | int = 0, key: Array | None = None) -> Array:
        return self._outputs(x, given, key, False)

    def fit(self, x: Array, given: Given, key: Array) -> None:
        """Give every convolution's outputs mean 0 and a fixed deviation on x (Salimans & Kingma 2016, section 3)."""
        self._outputs(x, given, key, True)

    def _outputs(self, x: Array, given: Given, key: Array | None, fit: bool) -> Array:
        keys = (None if key is None else jax.random.fold_in(key, index) for index in itertools.count())
        streams = self._first(x, fit)
        skips = [streams]
        for scale, pairs in enumerate(self.inward):
            if scale:
                streams = self.halvings[scale - 1](streams, fit)
                skips.append(streams)
            for pair in pairs:
                streams = pair(streams, None, given, keys, fit)
                skips.append(streams)
        streams = skips.pop()
        for scale, pairs in enumerate(self.outward):
            if scale:
                streams = self.doublings[scale - 1](streams, fit)
            for pair in pairs:
                streams = pair(streams, skips.pop(), given, keys, fit)
        return self.output(nnx.elu(streams[1]), fit)

    def _first(self, x: Array, fit: bool) -> Streams:
        """Features of the pixels before each. A channel of ones tells pixels from padding."""
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        down = _shift(self.above(x, fit), axis=1)
        return down, _shift(self.row_above(x, fit), axis=1) + _shift(self.left(x, fit), axis=2)


def _shift(x: Array, axis: int) -> Array:
    """Move every row down (axis 1), or every column to the right (axis 2), and fill in zeros."""
    first = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    return jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis=axis)
