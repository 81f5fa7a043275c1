"""What a family needs to know of the data: shape, levels, classes, and the two maps between integers and reals."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

TEXT = 'text'  # the kind of a field that is read as the numbers of its words


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Integer images in [0, levels), channels last.

    Two encodings to [−1, 1] are in use, and each has its own bin width:

    * `encode`: level k at 2k / (L − 1) − 1, outermost levels at ±1, for discretised decoders (Salimans et al. 2017);
    * `dequantise`: 2(k + u) / L − 1 with u in [0, 1), the bins tile [−1, 1], for densities (Theis et al. 2016).
    """

    name: str
    shape: tuple[int, int, int]  # height, width, channels
    levels: int
    classes: int = 0  # 0: unlabelled
    # What else a row holds: (name, TEXT or a type of numbers). Two sets of the same images are equal without it.
    fields: tuple[tuple[str, str], ...] = dataclasses.field(default=(), compare=False)
    content: str = dataclasses.field(default='', compare=False)  # a hash of the files it was prepared from; '': unknown

    def field(self, name: str) -> str:
        """What kind of field a row has under this name beside image and label; '' where it has none."""
        return dict(self.fields).get(name, '')

    @property
    def num_dims(self) -> int:
        return math.prod(self.shape)

    @property
    def log_bin_width(self) -> float:
        """Natural logarithm of the width of one dequantised level, 2 / L."""
        return math.log(2 / self.levels)

    def encode(self, images: jax.Array) -> jax.Array:
        """Integers → reals with the outermost levels at −1 and 1."""
        return images.astype(jnp.float32) * (2 / (self.levels - 1)) - 1

    def decode(self, x: jax.Array) -> jax.Array:
        """The level nearest to each encoded value, clipped to the range: inverse of `encode`."""
        return jnp.clip(jnp.round((x + 1) * ((self.levels - 1) / 2)), 0, self.levels - 1).astype(jnp.int32)

    def dequantise(self, images: jax.Array, u: jax.Array | float = 0.5) -> jax.Array:
        """Integers → the point at fraction `u` of their bin; 0.5 is the centre."""
        return (images.astype(jnp.float32) + u) * (2 / self.levels) - 1

    def quantise(self, x: jax.typing.ArrayLike) -> jax.Array:
        """The level whose bin holds each value, clipped to the range: inverse of `dequantise` for u inside (0, 1)."""
        return jnp.clip(jnp.floor((jnp.asarray(x) + 1) * (self.levels / 2)), 0, self.levels - 1).astype(jnp.int32)

    def bits_per_dim(self, nats: Any) -> Any:
        """Log-likelihood of a discrete image in nats → bits for each dimension."""
        return -nats / (self.num_dims * math.log(2))
