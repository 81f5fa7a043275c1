"""What a family needs to know of the data: shape, levels, classes, and the two maps between integers and reals."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError

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

    def __str__(self) -> str:
        classes = f', {self.classes} classes' if self.classes else ''
        return f'{self.name} ({"×".join(map(str, self.shape))}, {self.levels} levels{classes})'

    def field(self, name: str) -> str:
        """What kind of field a row has under this name beside image and label; '' where it has none."""
        return dict(self.fields).get(name, '')

    def of_size(self, size: tuple[int, int]) -> 'DataSpec':
        """The same data with images of another height and width.

        Raises:
          UserError: they do not divide those of the data.
        """
        height, width, channels = self.shape
        if len(size) != 2 or min(size) < 1 or height % size[0] or width % size[1]:
            told = '×'.join(map(str, size))
            raise UserError(f'Images of {told} are not to be had from {self.name}, whose {height}×{width} pixels they '
                            'have to divide.')  # fmt: skip
        return dataclasses.replace(self, shape=(*size, channels))

    def resized_from(self, data: 'DataSpec') -> dict[str, str]:
        """What protocols say of images that are smaller than those of the data; nothing of others."""
        size = f'{self.shape[0]}×{self.shape[1]}, means over areas rounded to levels'
        return {} if self.shape == data.shape else {'resized': size}

    @property
    def is_plane(self) -> bool:
        """Whether its images are points (`genbench.data.plane`)."""
        return self.shape == (1, 2, 1)

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

    @property
    def continuous(self) -> 'DataSpec':
        """The same data with a `decode` and a `quantise` that neither round nor clip, for small changes of images."""
        return Continuous(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def bits_per_dim(self, nats: Any) -> Any:
        """Log-likelihood of a discrete image in nats → bits for each dimension."""
        return -nats / (self.num_dims * math.log(2))

    def density_nats(self, nats: float) -> float:
        """log-likelihood of a discrete image → the negative logarithm of its density in [−1, 1]^dims, in nats."""
        return self.num_dims * self.log_bin_width - nats


class Continuous(DataSpec):
    """Images whose values, still in levels, are real."""

    def decode(self, x: jax.Array) -> jax.Array:
        return (x + 1) * ((self.levels - 1) / 2)

    def quantise(self, x: jax.typing.ArrayLike) -> jax.Array:
        return (jnp.asarray(x) + 1) * (self.levels / 2) - 0.5


def resize(images: Any, shape: tuple[int, ...]) -> Any:
    """Integer images (batch, height, width, channels) with each pixel the mean of the area that it takes the place of.

    The mean is rounded to the nearest level, a tie to the upper one, which is where the mean of the dequantised pixels
    falls. Host and devices give the same integers, and keep the type.

    Args:
      shape: of the images to come, (height, width, channels), which divides that of `images`.
    """
    count, (height, width, channels) = len(images), shape
    if images.shape[1:] == tuple(shape):
        return images
    down, across = images.shape[1] // height, images.shape[2] // width
    areas = images.reshape(count, height, down, width, across, channels)
    return ((areas.sum((2, 4), np.uint32) + down * across // 2) // (down * across)).astype(images.dtype)
