"""Invertible layers without a network: squeezing, logits, activation normalisation and 1×1 convolutions.

L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017 (RealNVP); D. Kingma, P. Dhariwal, Glow:
Generative Flow with Invertible 1×1 Convolutions, 2018 (Glow).

Each layer maps x (batch, height, width, channels) to y and log |det dy/dx| (batch,). Its `inverse` maps y back.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flax import nnx

Array = jax.Array


def squeeze(x: Array, side: int = 2) -> Array:
    """Turn 2×2 pixels into four times the channels: (b, 2h, 2w, c) → (b, h, w, 4c) (RealNVP, section 3.6).

    Args:
      side: of the squares that turn into channels, in pixels.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // side, width // side, side**2 * channels)


def unsqueeze(x: Array, side: int = 2) -> Array:
    """Inverse of `squeeze`."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // side**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, side * height, side * width, channels // side**2)


class Logit(nnx.Module):
    """logit(α + (1 − 2α) (x + 1) / 2), which takes the bounded range of pixels to a line (RealNVP, section 4.1)."""

    def __init__(self, margin: float):
        self.margin = margin

    def __call__(self, x: Array) -> tuple[Array, Array]:
        p = self.margin + (1 - 2 * self.margin) * (x + 1) / 2
        y = jnp.log(p) - jnp.log1p(-p)
        slope = math.log((1 - 2 * self.margin) / 2) - jnp.log(p) - jnp.log1p(-p)
        return y, slope.sum((1, 2, 3))

    def inverse(self, y: Array) -> Array:
        return 2 * (nnx.sigmoid(y) - self.margin) / (1 - 2 * self.margin) - 1


class Halved(nnx.Module):
    """x / 2, the range of pixels in Glow's code."""

    def __call__(self, x: Array) -> tuple[Array, Array]:
        return x / 2, jnp.full(len(x), -math.log(2) * x[0].size)

    def inverse(self, y: Array) -> Array:
        return 2 * y


class Normalisation(nnx.Module):
    """(x − shift) · scale in each channel ('actnorm': Glow, section 3.1).

    Args:
      speed: the logarithm of the scale is this times its parameter, which the optimizer then moves as much faster.
    """

    def __init__(self, channels: int, speed: float = 1.0):
        self.speed = speed
        self.shift = nnx.Param(jnp.zeros(channels))
        self.log_scale = nnx.Param(jnp.zeros(channels))

    def fit(self, x: Array, least: float = 0.0) -> None:
        """Set shift and scale so that every output channel has mean 0 and variance 1 on x.

        Args:
          least: smaller variances count as this one.
        """
        self.shift[...] = x.mean((0, 1, 2))
        deviation = jnp.maximum(x.std((0, 1, 2)), least**0.5) if least else x.std((0, 1, 2))
        self.log_scale[...] = -jnp.log(deviation + 1e-6) / self.speed

    def __call__(self, x: Array) -> tuple[Array, Array]:
        log_scale = self.speed * self.log_scale[...]
        log_det = x.shape[1] * x.shape[2] * log_scale.sum()
        return (x - self.shift[...]) * jnp.exp(log_scale), jnp.broadcast_to(log_det, len(x))

    def inverse(self, y: Array) -> Array:
        return y * jnp.exp(-self.speed * self.log_scale[...]) + self.shift[...]


class Running(nnx.Module):
    """Mean and variance (channels,) of batches, and their moving averages for use after training."""

    MOMENTUM = 0.9

    def __init__(self, channels: int):
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(channels)), nnx.BatchStat(jnp.ones(channels))

    def moments(self, x: Array, training: bool, fit: bool) -> tuple[Array, Array]:
        """Mean and variance of x (…, channels) in training or with `fit`, and otherwise the moving averages.

        Training moves the averages towards those of x; `fit` sets them.
        """
        own = self.mean[...], self.variance[...]
        if not (training or fit):
            return own
        share, axes = 1.0 if fit else 1 - self.MOMENTUM, tuple(range(x.ndim - 1))
        found = x.mean(axes), x.var(axes)
        self.mean[...], self.variance[...] = (
            old + share * (jax.lax.stop_gradient(new) - old) for old, new in zip(own, found, strict=True)
        )
        return found


@functools.lru_cache(maxsize=256)
def rotation(channels: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random rotation or reflection P L U: the permutation, the signs of U's diagonal, and a matrix of the rest.

    The matrix holds L below its diagonal, U above it, and log |diag U|. It depends on the arguments only.
    """
    drawn = np.random.default_rng([channels, number]).normal(size=(channels, channels))
    place, lower, upper = scipy.linalg.lu(np.linalg.qr(drawn)[0])
    diagonal = np.diag(upper)
    rest = np.tril(lower, -1) + np.triu(upper, 1) + np.diag(np.log(np.abs(diagonal)))
    return place.argmax(0), np.sign(diagonal).astype(np.float32), rest.astype(np.float32)


class Mixing(nnx.Module):
    """1×1 convolution with W = P L U (Glow, equation 10).

    By default, P reverses the channels, and L and U have unit diagonals, so the layer preserves volume and the
    normalisation before it provides the scales. With a number, W starts as `rotation` of this number, and the diagonal
    of U is learned except for its signs.
    """

    def __init__(self, channels: int, number: int | None = None):
        self.channels, self.number = channels, number
        fresh = jnp.zeros((channels, channels)) if number is None else jnp.asarray(rotation(channels, number)[2])
        self.kernel = nnx.Param(fresh)

    @property
    def order(self) -> np.ndarray:
        """Which channel P puts at each place."""
        return np.arange(self.channels)[::-1] if self.number is None else rotation(self.channels, self.number)[0]

    def _factors(self) -> tuple[Array, Array]:
        kernel, one = self.kernel[...], jnp.eye(self.channels)
        diagonal = one if self.number is None else jnp.diag(rotation(self.channels, self.number)[1] * self._stretch())
        return jnp.tril(kernel, -1) + one, jnp.triu(kernel, 1) + diagonal

    def _stretch(self) -> Array:
        return jnp.exp(jnp.diagonal(self.kernel[...]))

    def __call__(self, x: Array) -> tuple[Array, Array]:
        weight = jnp.matmul(*self._factors(), precision='highest')
        y = jnp.matmul(x, weight[np.argsort(self.order)], precision='highest')  # permutes the small matrix
        log_det = 0.0 if self.number is None else x.shape[1] * x.shape[2] * jnp.diagonal(self.kernel[...]).sum()
        return y, jnp.broadcast_to(log_det, len(x))

    def inverse(self, y: Array) -> Array:
        lower, upper = self._factors()
        columns = jax.scipy.linalg.solve_triangular(upper, y.reshape(-1, y.shape[-1]).T, trans='T')
        columns = jax.scipy.linalg.solve_triangular(lower, columns, trans='T', lower=True)
        return columns.T.reshape(y.shape)[..., np.argsort(self.order)]
