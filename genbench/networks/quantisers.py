"""Quantisers: from vectors on a grid of positions to codes of a finite set, and how often each position has each code.

A. van den Oord, O. Vinyals, K. Kavukcuoglu, Neural Discrete Representation Learning, 2017 (VQ-VAE); P. Dhariwal et al.,
Jukebox, 2020 (random restarts); F. Mentzer et al., Finite Scalar Quantization, 2024 (FSQ).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array
SMOOTHING = 0.01  # of the prior, spread evenly over the codes, so that a code that was never seen has a probability


class Quantiser(nnx.Module):
    """Codes, and a moving average of their shares at each position.

    Args:
      positions: of the grid, height × width.
      size: codes in the set.
      decay: of the moving averages.
    """

    def __init__(self, positions: int, size: int, decay: float):
        self.decay, self.size = decay, size
        self.shares = nnx.BatchStat(jnp.full((positions, size), 1 / size))

    def assign(self, z: Array) -> Array:
        """Index of the code of each vector: (…, channels) → integers (…)."""
        raise NotImplementedError

    def lookup(self, index: Array) -> Array:
        """Codes by index: integers (…) → (…, channels)."""
        raise NotImplementedError

    def quantise(self, z: Array) -> tuple[Array, Array]:
        """Indices and codes; the gradient of a code passes to z as if it were z (VQ-VAE, section 3.2)."""
        index = self.assign(z)
        return index, z + jax.lax.stop_gradient(self.lookup(index) - z)

    def log_prior(self) -> Array:
        """log p of each code at each position, (positions, size)."""
        return jnp.log((1 - SMOOTHING) * self.shares[...] + SMOOTHING / self.size)

    def observe(self, z: Array, index: Array) -> Array:
        """Move the averages by vectors (batch, height, width, channels) and their codes; the shares in this batch."""
        chosen = jax.nn.one_hot(index.reshape(len(index), -1), self.size)  # (batch, positions, size)
        shares = chosen.mean(0)
        self.shares[...] = self._moved(self.shares[...], shares)
        return shares

    def _moved(self, old: Array, new: Array) -> Array:
        return self.decay * old + (1 - self.decay) * new


class Codebook(Quantiser):
    """Learned codes: each is the moving average of the vectors that are nearest to it (VQ-VAE, appendix A.1)."""

    def __init__(self, positions: int, size: int, channels: int, decay: float):
        super().__init__(positions, size, decay)
        self.share = nnx.BatchStat(jnp.full(size, 1 / size))
        self.total = nnx.BatchStat(jnp.zeros((size, channels)))

    @property
    def codes(self) -> Array:
        """(size, channels)."""
        return self.total[...] / jnp.maximum(self.share[...], 1e-8)[:, None]

    def start(self, z: Array, key: Array) -> None:
        """Make vectors of the first batch (…, channels) the codes."""
        self.total[...] = _some(z, self.size, key) / self.size

    def assign(self, z: Array) -> Array:
        codes = self.codes
        distance = jnp.square(codes).sum(-1) - 2 * jnp.einsum('...c,kc->...k', z, codes)  # and |z|², the same for all
        return distance.argmin(-1)

    def lookup(self, index: Array) -> Array:
        return self.codes[index]

    def observe(self, z: Array, index: Array) -> Array:
        shares = super().observe(z, index)
        z = jax.lax.stop_gradient(z)
        chosen = jax.nn.one_hot(index, self.size)
        total = jnp.einsum('bhwk,bhwc->bkc', chosen, z).mean(0) / len(self.shares[...])
        self.share[...] = self._moved(self.share[...], shares.mean(0))
        self.total[...] = self._moved(self.total[...], total)
        return shares

    def revive(self, z: Array, below: float, key: Array) -> None:
        """Put vectors of the batch in the place of codes whose share is below this many times the even one (Jukebox,
        section 3.1)."""
        dead = self.share[...] < below / self.size
        self.total[...] = jnp.where(dead[:, None], _some(z, self.size, key) / self.size, self.total[...])
        self.share[...] = jnp.where(dead, 1 / self.size, self.share[...])


class Scalars(Quantiser):
    """Every channel rounded to one of its levels, which are evenly spaced in [−1, 1] (FSQ, section 3.1)."""

    def __init__(self, positions: int, levels: tuple[int, ...], decay: float):
        super().__init__(positions, math.prod(levels), decay)
        self.levels = levels

    def assign(self, z: Array) -> Array:
        digits = jnp.round(self._bounded(z)).astype(jnp.int32) + self._halves()
        return (digits * jnp.asarray(_places(self.levels))).sum(-1)

    def lookup(self, index: Array) -> Array:
        digits = index[..., None] // jnp.asarray(_places(self.levels)) % jnp.asarray(self.levels)
        return (digits - self._halves()) / self._halves()

    def quantise(self, z: Array) -> tuple[Array, Array]:
        bounded = self._bounded(z) / self._halves()
        index = self.assign(z)
        return index, bounded + jax.lax.stop_gradient(self.lookup(index) - bounded)

    def _halves(self) -> Array:
        return jnp.asarray(self.levels) // 2

    def _bounded(self, z: Array) -> Array:
        """Numbers that round to −⌊L/2⌋ … ⌈L/2⌉ − 1, with zero where z is zero."""
        levels = jnp.asarray(self.levels)
        reach = (levels - 1) / 2 * (1 - 1e-3)
        offset = jnp.where(levels % 2, 0.0, 0.5)
        return jnp.tanh(z + jnp.arctanh(offset / reach)) * reach - offset


def _places(levels: tuple[int, ...]) -> tuple[int, ...]:
    """What one step of each channel adds to an index."""
    return tuple(math.prod(levels[:channel]) for channel in range(len(levels)))


def _some(z: Array, count: int, key: Array) -> Array:
    """Vectors (count, channels), drawn from z (…, channels)."""
    vectors = z.reshape(-1, z.shape[-1])
    return vectors[jax.random.randint(key, (count,), 0, len(vectors))]
