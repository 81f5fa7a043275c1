"""RealNVP as published: couplings with checkerboard and channel masks, squeezing, and several scales.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017, and its official code, which settles
what the paper leaves open: skip connections and inputs of the networks, what is normalised, and the order of channels
when an image is squeezed. T. Salimans, D. Kingma, Weight Normalization, 2016.

Each module maps x (batch, height, width, channels) to y and log |det dy/dx| (batch,). Its `inverse` maps y back. With
`training` or `fit`, all normalisations use the statistics of the batch.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.networks import layers
from genbench.networks.invertible import Logit, Running, squeeze, unsqueeze
from genbench.ranges import COUNT, Range

Array = jax.Array

DEFAULTS = {
    'channels': 64,  # feature maps of the networks at the first scale; twice as many after every halving
    'scales': 2,  # the images are halved one time fewer
    'blocks': 8,  # residual blocks of each network
    'margin': 0.05,  # α of the logits, as in `couplings`
}
RANGES = {
    'channels': COUNT,
    'scales': COUNT,
    'blocks': COUNT,
    'margin': Range(0, 0.5, above=True, below=True),
}
EPSILON = 1e-4  # of the batch normalisation
CHECKERBOARDS, CHANNELS = 3, 3  # couplings of each kind in a scale; the last has one more checkerboard and no channels


class Conv(nnx.Module):
    """A convolution whose kernel has norm one for each output, or a learned norm if it is `scaled`."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, bias: bool = True, scaled: bool = False, rngs: nnx.Rngs
    ):
        limit, shape = math.sqrt(2 / inputs), (kernel, kernel, inputs, outputs)
        self.direction = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-limit, maxval=limit))
        self.magnitude = nnx.Param(jnp.full(outputs, kernel / math.sqrt(6))) if scaled else None
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Array) -> Array:
        kernel = self.direction[...]
        kernel = kernel * jax.lax.rsqrt(jnp.square(kernel).sum((0, 1, 2)))
        kernel = kernel if self.magnitude is None else kernel * self.magnitude[...]
        y = layers.convolve(x, kernel)
        return y if self.bias is None else y + self.bias[...]


class Norm(Running):
    """Batch normalisation with a learned shift and no learned scale."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.shift = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Array, training: bool, fit: bool) -> Array:
        mean, variance = self.moments(x, training, fit)
        return (x - mean) * jax.lax.rsqrt(variance + EPSILON) + self.shift[...]


class Block(nnx.Module):
    """x plus two convolutions of it, each after a normalisation and a ReLU."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norms = nnx.List([Norm(width) for _ in range(2)])
        self.hidden, self.output = Conv(width, width, bias=False, rngs=rngs), Conv(width, width, scaled=True, rngs=rngs)

    def __call__(self, x: Array, training: bool, fit: bool) -> Array:
        h = self.hidden(nnx.relu(self.norms[0](x, training, fit)))
        return x + self.output(nnx.relu(self.norms[1](h, training, fit)))


class ResNet(nnx.Module):
    """The network of s and t: residual blocks, the sum of whose states leads to the output."""

    def __init__(
        self, inputs: int, outputs: int, forms: Mapping[str, Form], *, width: int, blocks: int, rngs: nnx.Rngs
    ):
        self.conv_in = Conv(inputs, width, rngs=rngs)
        self.classes = layers.Classes(forms, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs=rngs) for _ in range(blocks)])
        self.skips = nnx.List([Conv(width, width, kernel=1, scaled=True, rngs=rngs) for _ in range(blocks + 1)])
        self.norm, self.conv_out = Norm(width), Conv(width, outputs, kernel=1, scaled=True, rngs=rngs)

    def __call__(self, x: Array, given: Given, training: bool, fit: bool) -> Array:
        h, classes = self.conv_in(x), self.classes(given)
        h = h if classes is None else h + classes[:, None, None]
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, list(self.skips)[1:], strict=True):
            h = block(h, training, fit)
            total = total + skip(h)
        return self.conv_out(nnx.relu(self.norm(total, training, fit)))


class Coupling(Running):
    """y = m x + (1 − m)(x exp(s(m x)) + t(m x)) for a mask m, then batch normalisation of what moved (equation 9).

    As in the official code, this normalisation has no parameters, and its statistics count what stays as zeros.

    Args:
      checkered: m is one on the fields of one colour of a checkerboard. Otherwise it is one for half of the channels.
      second: the other half stays.
    """

    def __init__(
        self, channels: int, forms: Mapping[str, Form], *, checkered: bool, second: bool, width: int, blocks: int,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        super().__init__(channels)
        self.checkered, self.second = checkered, second
        seen = channels if checkered else channels // 2
        self.norm = Norm(seen)
        self.network = ResNet(2 * seen + checkered, 2 * seen, forms, width=width, blocks=blocks, rngs=rngs)
        self.reach = nnx.Param(jnp.zeros(()) if checkered else jnp.ones(()))  # of the tanh around s

    def mask(self, x: Array) -> np.ndarray:
        """m (height, width, channels)."""
        rows, columns, channels = np.indices(x.shape[1:])
        first = (rows + columns) % 2 == 0 if self.checkered else channels < x.shape[-1] // 2
        return (first != self.second).astype(np.float32)

    def _affine(self, x: Array, mask: np.ndarray, given: Given, training: bool, fit: bool) -> tuple[Array, Array]:
        """s and t, zero for what stays."""
        halves = slice(None) if self.checkered else mask[0, 0] == 1
        h = self.norm((x * mask)[..., halves], training, fit)
        parts = [2 * h, -2 * h, jnp.broadcast_to(mask[..., :1], (*x.shape[:3], 1))] if self.checkered else [h, -h]
        found = self.network(nnx.relu(jnp.concatenate(parts, axis=-1)), given, training, fit)
        shift, log_scale = jnp.split(found, 2, axis=-1)
        both = self.reach[...] * jnp.tanh(log_scale), shift
        if self.checkered:
            return both[0] * (1 - mask), both[1] * (1 - mask)
        sides = [jnp.zeros_like(shift)] * 2
        place = 0 if self.second else 1
        first, second = (jnp.concatenate([*sides[:place], one, *sides[place + 1 :]], axis=-1) for one in both)
        return first, second

    def __call__(self, x: Array, given: Given = None, training: bool = False, fit: bool = False) -> tuple[Array, Array]:
        mask = self.mask(x)
        log_scale, shift = self._affine(x, mask, given, training, fit)
        y = x * jnp.exp(log_scale) + shift
        mean, variance = self.moments(y * (1 - mask), training, fit)
        deviation = jnp.log(variance + EPSILON) / 2 * (1 - mask)
        return (y - mean * (1 - mask)) * jnp.exp(-deviation), (log_scale - deviation).sum((1, 2, 3))

    def inverse(self, y: Array, given: Given = None) -> Array:
        mask = self.mask(y)
        log_scale, shift = self._affine(y, mask, given, False, False)  # what stays is the same in x and y
        mean, variance = self.moments(y, False, False)
        y = y * jnp.exp(jnp.log(variance + EPSILON) / 2 * (1 - mask)) + mean * (1 - mask)
        return (y - shift) * jnp.exp(-log_scale)


def orders(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Two orders of the channels of `squeeze`, which come by pixels: by colours, and by the diagonals of 2×2 pixels.

    Couplings see the first order, and the second half of the second order is factored out.
    """
    places = np.arange(4 * channels).reshape(4, channels)
    return places.T.reshape(-1), places[[0, 3, 1, 2]].reshape(-1)


class Flow(nnx.Module):
    """Images in [−1, 1] (batch, *shape) ↔ vectors (batch, dims), normal after training (section 3.6).

    Calls have the form of those to `couplings.Flow`. Classes, which the paper does not have, are added to the first
    layer of every network.

    Raises:
      UserError: the images cannot be halved that often.
    """

    def __init__(
        self, shape: tuple[int, int, int], forms: Mapping[str, Form], *, channels: int, scales: int, blocks: int,
        margin: float, rngs: nnx.Rngs,
    ):  # fmt: skip
        rows, columns, depth = shape
        factor = 2 ** (scales - 1)
        if rows % factor or columns % factor:
            raise UserError(f'A flow of {scales} scales (network.scales) needs images whose height and width are '
                            f'divisible by {factor}; these have {rows}×{columns}.')  # fmt: skip

        def several(count: int, depth: int, width: int, checkered: bool) -> nnx.List:
            options: dict[str, Any] = {'checkered': checkered, 'width': width, 'blocks': blocks, 'rngs': rngs}
            return nnx.List([Coupling(depth, forms, second=index % 2 == 1, **options) for index in range(count)])

        self.logit, self.shapes = Logit(margin), [shape]  # the shapes of all scales
        boards, halves = [], []
        for scale in range(scales):
            last, depth, width = scale == scales - 1, self.shapes[-1][2], channels * 2**scale
            boards.append(several(CHECKERBOARDS + last, depth, width, True))
            halves.append(several(0 if last else CHANNELS, 4 * depth, 2 * width, False))
            self.shapes.append((rows >> scale + 1, columns >> scale + 1, 2 * depth))
        self.boards, self.halves, self.shapes = nnx.List(boards), nnx.List(halves), self.shapes[:-1]

    def __call__(
        self, x: Array, given: Given = None, key: Array | None = None, fit: bool = False
    ) -> tuple[Array, Array]:
        (x, log_det), factored = self.logit(x), []
        for scale, (boards, halves) in enumerate(zip(self.boards, self.halves, strict=True)):
            for layer in boards:
                x, change = layer(x, given, key is not None, fit)
                log_det += change
            if scale == len(self.boards) - 1:
                break
            colours, diagonals = orders(x.shape[-1])
            x = squeeze(x)[..., colours]
            for layer in halves:
                x, change = layer(x, given, key is not None, fit)
                log_det += change
            x, moved = jnp.split(x[..., np.argsort(colours)[diagonals]], 2, axis=-1)
            factored.append(moved)
        return jnp.concatenate([part.reshape(len(x), -1) for part in (*factored, x)], axis=-1), log_det

    def inverse(self, z: Array, given: Given = None) -> Array:
        """Map vectors back to images."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes[1:]])
        *factored, x = jnp.split(z, ends, axis=-1)
        x = x.reshape(len(z), *self.shapes[-1])
        for scale in reversed(range(len(self.shapes))):
            if scale < len(factored):
                colours, diagonals = orders(self.shapes[scale][2])
                moved = factored[scale].reshape(x.shape)
                x = jnp.concatenate([x, moved], axis=-1)[..., np.argsort(diagonals)[colours]]
                for layer in reversed(self.halves[scale]):
                    x = layer.inverse(x, given)
                x = unsqueeze(x[..., np.argsort(colours)])
            for layer in reversed(self.boards[scale]):
                x = layer.inverse(x, given)
        return self.logit.inverse(x)

    def penalty(self) -> Array:
        """The sum of the squares of what the paper regularises: learned norms of kernels, and reaches of tanh.

        As in the official code, reaches count in couplings with checkerboards only.
        """
        nodes = [node for _, node in nnx.iter_graph(self)]
        found = [node.magnitude[...] for node in nodes if isinstance(node, Conv) and node.magnitude is not None]
        found += [node.reach[...] for node in nodes if isinstance(node, Coupling) and node.checkered]
        return sum((jnp.square(one).sum() for one in found), jnp.zeros(()))
