"""Degradations A of images: the known half of an inverse problem y = A x + noise.

Each is a function of images (batch, height, width, channels) with values in [−1, 1]. A linear one comes with its
adjoint and its pseudo-inverse. Configs and samplers write NAME or NAMENUMBER, such as 'half', 'pool2' or 'blur1.5'.
"""

import abc
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError, did_you_mean

Array = jax.Array
Shape = tuple[int, ...]


class Degradation(abc.ABC):
    """A, from images (batch, height, width, channels) to observations y (batch, *shape)."""

    linear: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """A x."""

    @abc.abstractmethod
    def adjoint(self, y: Array) -> Array:
        """Aᵀ y."""

    @abc.abstractmethod
    def inverse(self, y: Array) -> Array:
        """A⁺ y, the shortest of the images that come closest to y under A."""

    @abc.abstractmethod
    def whitened(self, y: Array, a: Array | float, b: Array | float) -> Array:
        """(a A Aᵀ + b I)⁻¹ y for y in the range of A; a and b are scalars or (batch, 1, 1, 1)."""

    def shown(self, y: Array) -> Array:
        """y where A shows something of the image, and 0 elsewhere."""
        return y

    def picture(self, y: Array, shape: Shape) -> Array:
        """y as a picture (batch, height, width, channels) of images of this shape. A small y is enlarged by A⁺."""
        return y if y.shape[1:3] == shape[:2] else self.inverse(y)

    def distance(self, y: Array, x: Array) -> Array:
        """The root mean square (batch,) of y − A x over the values that A shows."""
        error = jnp.square(self.shown(y - self(x))).reshape(len(x), -1).sum(1)
        count = self.shown(jnp.ones_like(y)).reshape(len(y), -1).sum(1)
        return jnp.sqrt(error / jnp.maximum(count, 1))

    @property
    def condition(self) -> float:
        """The largest singular value over the smallest that is not 0; 1 where A is not a matrix."""
        return 1.0

    def at(self, reach: float) -> 'Degradation':
        """The same for images in [−reach, reach]. A linear one stays as it is."""
        return self

    def filled(self, x: Array, y: Array) -> Array:
        """The image nearest to x among those that A takes to y, where there is one."""
        return x + self.inverse(y - self(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Mask(Degradation):
    """Hides pixels: y is x where `known` (…, height, width, 1) is above 0, and 0 elsewhere."""

    known: Any

    def __call__(self, x: Array) -> Array:
        return jnp.where(self.known > 0, x, 0)

    def shown(self, y: Array) -> Array:
        return self(y)

    def picture(self, y: Array, shape: Shape) -> Array:
        """y, and a channel that is 1 where it is known."""
        known = jnp.broadcast_to(jnp.asarray(self.known, jnp.float32), (len(y), *shape[:2], 1))
        return jnp.concatenate([self(y), known], axis=-1)

    def adjoint(self, y: Array) -> Array:
        return self(y)

    def inverse(self, y: Array) -> Array:
        return self(y)

    def whitened(self, y: Array, a: Array | float, b: Array | float) -> Array:
        return self(y / (a + b))

    def filled(self, x: Array, y: Array) -> Array:
        return jnp.where(self.known > 0, y, x)


@dataclasses.dataclass(frozen=True, eq=False)
class Separable(Degradation):
    """A matrix along each axis: y = R x Cᵀ for each channel, and then K over the channels. None has more rows than
    columns."""

    rows: np.ndarray
    columns: np.ndarray
    channels: np.ndarray

    def __call__(self, x: Array) -> Array:
        return _along((self.rows, self.columns, self.channels), x)

    def adjoint(self, y: Array) -> Array:
        return _along((self.rows.T, self.columns.T, self.channels.T), y)

    def inverse(self, y: Array) -> Array:
        left, values, right = self._decomposed
        return _along([v.T for v in right], _inverted(values) * _along([u.T for u in left], y))

    def whitened(self, y: Array, a: Array | float, b: Array | float) -> Array:
        left, values, _ = self._decomposed
        return _along(left, _inverted(a * np.square(values) + b) * _along([u.T for u in left], y))

    @property
    def condition(self) -> float:
        _, values, _ = self._decomposed
        return float(values.max() / values[values > 0].min())

    @functools.cached_property
    def _decomposed(self) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
        """The singular value decomposition. Singular values that 32-bit numbers cannot tell from 0 are 0."""
        parts = [np.linalg.svd(matrix, full_matrices=False) for matrix in (self.rows, self.columns, self.channels)]
        values = np.einsum('i,j,k->ijk', *(part.S for part in parts))
        values = np.where(values > 1e-6 * values.max(), values, 0)
        return [part.U for part in parts], values.astype(np.float32), [part.Vh for part in parts]


def _inverted(values: Any) -> Array:
    """1 / values, and 0 for 0."""
    return jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1), 0)


def _along(matrices: Any, x: Array) -> Array:
    parts = (jnp.asarray(matrix, jnp.float32) for matrix in matrices)
    return jnp.einsum('ia,jb,kc,nabc->nijk', *parts, x, precision='highest')


# The luminance table of the JPEG standard (ITU-T T.81, table K.1).
LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised(Degradation):
    """JPEG's loss: the cosine transform of 8×8 blocks of each channel, rounded to multiples of a table.

    The table is that of luminance for every channel, scaled by the quality as libjpeg does; there is no change of
    colours and no subsampling. y is the decoded picture, so that decoding stands for the pseudo-inverse (J. Song et
    al. 2023, ΠGDM, section 3.2). Gradients pass through the rounding unchanged.
    """

    quality: float
    reach: float = 1.0
    linear: ClassVar[bool] = False

    def at(self, reach: float) -> 'Quantised':
        return dataclasses.replace(self, reach=reach)

    def __call__(self, x: Array) -> Array:
        height, width = x.shape[1:3]
        padded = jnp.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode='edge')
        n, rows, columns, channels = padded.shape
        blocks = 127.5 / self.reach * padded.reshape(n, rows // 8, 8, columns // 8, 8, channels) - 0.5  # levels − 128
        waves, table = _cosines(), self._table[:, None, :, None]
        found = jnp.einsum('ua,vb,niajbc->niujvc', waves, waves, blocks, precision='highest') / table
        kept = table * (found + jax.lax.stop_gradient(jnp.round(found) - found))
        decoded = jnp.einsum('ua,vb,niujvc->niajbc', waves, waves, kept, precision='highest') + 0.5
        return (self.reach / 127.5 * decoded).reshape(n, rows, columns, channels)[:, :height, :width]

    def adjoint(self, y: Array) -> Array:
        return y

    def inverse(self, y: Array) -> Array:
        return y

    def whitened(self, y: Array, a: Array | float, b: Array | float) -> Array:
        return y / (a + b)

    @property
    def _table(self) -> np.ndarray:
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        return np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255).astype(np.float32)


def _cosines() -> np.ndarray:
    """The orthonormal cosine transform of eight values, one frequency a row."""
    place, frequency = np.arange(8), np.arange(8)[:, None]
    waves = np.cos(np.pi * (2 * place + 1) * frequency / 16) / 2
    waves[0] /= math.sqrt(2)
    return waves.astype(np.float32)


def pooling(size: int, side: int) -> np.ndarray:
    """The means over neighbours, `side` at a time, as a matrix (size / side, size)."""
    return np.kron(np.eye(size // side), np.full((1, side), 1 / side))


def blurring(size: int, deviation: float) -> np.ndarray:
    """A Gaussian filter with this standard deviation in pixels as a matrix. The image is mirrored at its edges."""
    place = np.arange(size)
    mirrored = [place + 2 * size * fold for fold in (-1, 0, 1)] + [2 * size * fold - 1 - place for fold in (0, 1)]
    weights = np.sum([np.exp(-np.square((place[:, None] - source) / deviation) / 2) for source in mirrored], axis=0)
    return weights / weights.sum(1, keepdims=True)


def _rectangle(shape: Shape, share: float) -> np.ndarray:
    """1 in a centred rectangle with this share of the area and the picture's proportions, (height, width, 1)."""
    inside = []
    for size in shape[:2]:
        length = min(max(1, round(size * share**0.5)), size - 1)
        first = (size - length) // 2
        inside.append((np.arange(size) >= first) & (np.arange(size) < first + length))
    return (inside[0][:, None] & inside[1])[..., None].astype(np.float32)


def _half(shape: Shape) -> np.ndarray:
    known = np.zeros((*shape[:2], 1), np.float32)
    known[: shape[0] // 2] = 1
    return known


def _random(shape: Shape, percent: float) -> np.ndarray:
    """The same pixels for every image."""
    order = np.random.default_rng(0).permutation(math.prod(shape[:2]))
    return (order >= round(percent / 100 * len(order))).reshape(*shape[:2], 1).astype(np.float32)


def _pool(shape: Shape, side: float) -> Degradation:
    height, width, channels = shape
    if side != int(side) or height % side or width % side:
        raise UserError(f'The problem pool{side:g} needs images with sides divisible by {side:g}; these have '
                        f'{height}×{width}.')  # fmt: skip
    return Separable(pooling(height, int(side)), pooling(width, int(side)), np.eye(channels))


def _grey(shape: Shape) -> Degradation:
    if shape[2] == 1:
        raise UserError('The problem grey needs colour images, but those of this run are grey.')
    return Separable(np.eye(shape[0]), np.eye(shape[1]), np.full((1, shape[2]), 1 / shape[2]))


def _blur(shape: Shape, deviation: float) -> Degradation:
    return Separable(blurring(shape[0], deviation), blurring(shape[1], deviation), np.eye(shape[2]))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A name that problems may have, the limits of its number and its default, and what makes it for a shape."""

    make: Callable[..., Degradation]
    low: float = 0.0
    high: float = 0.0
    number: float = 0.0


# What each hides: the middle, the lower or right half, pixels at random, the border, …. Numbers are percentages of the
# the area.
KINDS: dict[str, Kind] = {
    'box': Kind(lambda shape, percent: Mask(1 - _rectangle(shape, percent / 100)), 1, 99, 25),
    'half': Kind(lambda shape: Mask(_half(shape))),
    'right': Kind(lambda shape: Mask(np.swapaxes(_half((shape[1], shape[0])), 0, 1))),
    'random': Kind(lambda shape, percent: Mask(_random(shape, percent)), 1, 99, 50),
    'border': Kind(lambda shape, percent: Mask(_rectangle(shape, 1 - percent / 100)), 1, 99, 50),
    'pool': Kind(_pool, 2, 64, 2),  # side of the squares
    'blur': Kind(_blur, 0.1, 64, 1),  # standard deviation in pixels
    'grey': Kind(_grey),
    'noise': Kind(lambda shape: Mask(np.ones((*shape[:2], 1), np.float32))),  # A is the identity
    'jpeg': Kind(lambda shape, quality: Quantised(quality), 1, 100, 25),
}
GIVEN = 'mask'  # the problem whose mask comes with each image


def read(text: str) -> str:
    """The name of a problem, checked. Raise a ValueError that says what it can be."""
    if text != GIVEN:
        _parsed(text)
    return text


def _parsed(text: str) -> tuple[Kind, tuple[float, ...]]:
    found = re.fullmatch(r'([a-z]+)(\d+(?:\.\d+)?)?', text[:40])
    if not found or found[1] not in KINDS:
        raise ValueError(f'{", ".join(KINDS)} or {GIVEN}. {did_you_mean(text, [*KINDS, GIVEN])}'.rstrip('. '))
    kind, number = KINDS[found[1]], found[2]
    if not kind.high:
        if number:
            raise ValueError(f'{found[1]} without a number')
        return kind, ()
    value = float(number) if number else kind.number
    if not kind.low <= value <= kind.high:
        raise ValueError(f'{found[1]} with a number from {kind.low:g} to {kind.high:g}')
    return kind, (value,)


def make(text: str, shape: Shape) -> Degradation:
    """The degradation that `read` accepted, for images of this shape (height, width, channels).

    Raises:
      UserError: there is no such problem, or these images do not admit it.
    """
    try:
        kind, numbers = _parsed(text)
    except ValueError as error:
        raise UserError(f'There is no problem {text!r}; it can be {error}.') from None
    return kind.make(shape, *numbers)
