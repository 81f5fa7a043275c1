"""Quantisers map vectors on a grid of positions to a finite set of codes, and track code frequencies at each position.

A. van den Oord, O. Vinyals, K. Kavukcuoglu, Neural Discrete Representation Learning, 2017 (VQ-VAE); P. Dhariwal et al.,
Jukebox, 2020 (random restarts); F. Mentzer et al., Finite Scalar Quantization, 2024 (FSQ).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array
SMOOTHING = 0.01  # share of the prior that is spread evenly, so that unseen codes have a probability


class Quantiser(nnx.Module):
    """A set of codes, and a moving average of each code's share at each position.

    Args:
      positions: the number of grid positions, height × width.
      size: the number of codes in the set.
      decay: the decay of the moving averages.
    """

    def __init__(self, positions: int, size: int, decay: float):
        self.decay, self.size = decay, size
        self.position_shares = nnx.BatchStat(jnp.full((positions, size), 1 / size))

    def squash(self, z: Array) -> Array:
        """Map an encoder's output (…, channels) into the range of the codes."""
        return z

    def assign(self, z: Array) -> Array:
        """The index of each vector's code: (…, channels) → integers (…)."""
        raise NotImplementedError

    def lookup(self, index: Array) -> Array:
        """Codes by index: integers (…) → (…, channels)."""
        raise NotImplementedError

    def quantise(self, z: Array) -> tuple[Array, Array]:
        """Indices and codes. The gradient of a code passes to z unchanged (VQ-VAE, section 3.2)."""
        index = self.assign(z)
        return index, z + jax.lax.stop_gradient(self.lookup(index) - z)

    def log_prior(self) -> Array:
        """log p of each code at each position, (positions, size)."""
        return jnp.log((1 - SMOOTHING) * self.position_shares[...] + SMOOTHING / self.size)

    def observe(self, z: Array, index: Array) -> Array:
        """Update the averages with these vectors (batch, height, width, channels) and their codes.

        Returns the codes' shares in this batch, (positions, size).
        """
        shares = jax.nn.one_hot(index.reshape(len(index), -1), self.size).mean(0)
        self.position_shares[...] = self._moved(self.position_shares[...], shares)
        return shares

    def _moved(self, old: Array, new: Array) -> Array:
        return self.decay * old + (1 - self.decay) * new


class Codebook(Quantiser):
    """Learned codes: each is the moving average of the vectors that are nearest to it (VQ-VAE, appendix A.1).

    Args:
      least: a code whose share falls below this is dead. Fresh codes start with this share, and so follow the data at
        once.
    """

    def __init__(self, positions: int, size: int, channels: int, decay: float, least: float):
        super().__init__(positions, size, decay)
        self.least = least
        self.usage = nnx.BatchStat(jnp.full(size, least))
        self.total = nnx.BatchStat(jnp.zeros((size, channels)))

    @property
    def codes(self) -> Array:
        """All codes, (size, channels)."""
        return self.total[...] / jnp.maximum(self.usage[...], 1e-30)[:, None]

    def start(self, z: Array, key: Array) -> None:
        """Take vectors of the first batch (…, channels) as the codes."""
        self.total[...] = self.least * _some(z, self.size, key)

    def assign(self, z: Array) -> Array:
        codes = self.codes
        inner = jnp.einsum('...c,kc->...k', z, codes, precision='highest')
        return (jnp.square(codes).sum(-1) - 2 * inner).argmin(-1)  # |z|² is the same for all

    def lookup(self, index: Array) -> Array:
        return self.codes[index]

    def observe(self, z: Array, index: Array) -> Array:
        shares, z = super().observe(z, index), jax.lax.stop_gradient(z)
        chosen = jax.nn.one_hot(index, self.size)
        total = jnp.einsum('bhwk,bhwc->kc', chosen, z, precision='highest') / math.prod(index.shape)
        self.usage[...] = self._moved(self.usage[...], shares.mean(0))
        self.total[...] = self._moved(self.total[...], total)
        return shares

    def revive(self, z: Array, key: Array) -> None:
        """Replace dead codes by vectors of the batch (Jukebox, section 3.1)."""
        dead = self.usage[...] < self.least
        self.total[...] = jnp.where(dead[:, None], self.least * _some(z, self.size, key), self.total[...])
        self.usage[...] = jnp.where(dead, self.least, self.usage[...])


class Scalars(Quantiser):
    """Rounds every channel to one of its levels, which are evenly spaced from −1 upwards (FSQ, section 3.1).

    For an even number of levels, the shift is an inverse tanh, so that zero maps to the code zero. The paper's code
    uses the tangent instead, which differs by 3·10⁻⁴ with four levels.
    """

    def __init__(self, positions: int, levels: tuple[int, ...], decay: float):
        super().__init__(positions, math.prod(levels), decay)
        self.levels = levels

    def squash(self, z: Array) -> Array:
        """Numbers that round to −⌊L/2⌋ … ⌈L/2⌉ − 1, divided by ⌊L/2⌋."""
        levels = jnp.asarray(self.levels)
        reach = (levels - 1) / 2 * (1 - 1e-3)
        offset = jnp.where(levels % 2, 0.0, 0.5)
        return (jnp.tanh(z + jnp.arctanh(offset / reach)) * reach - offset) / self._halves()

    def assign(self, z: Array) -> Array:
        digits = jnp.round(z * self._halves()).astype(jnp.int32) + self._halves()
        return (jnp.clip(digits, 0, jnp.asarray(self.levels) - 1) * jnp.asarray(_places(self.levels))).sum(-1)

    def lookup(self, index: Array) -> Array:
        digits = index[..., None] // jnp.asarray(_places(self.levels)) % jnp.asarray(self.levels)
        return (digits - self._halves()) / self._halves()

    def _halves(self) -> Array:
        return jnp.asarray(self.levels) // 2


def _places(levels: tuple[int, ...]) -> tuple[int, ...]:
    """How much one step in each channel adds to an index."""
    return tuple(math.prod(levels[:channel]) for channel in range(len(levels)))


def _some(z: Array, count: int, key: Array) -> Array:
    """Distinct vectors (count, channels) from z (…, channels), some repeated if z has too few."""
    vectors = z.reshape(-1, z.shape[-1])
    return vectors[jnp.resize(jax.random.permutation(key, len(vectors)), (count,))]
