"""What a family needs to know about the data: shape, levels, classes, and the two maps between integers and reals."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError

TEXT = 'text'  # the type of fields that are read as word ids


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Integer images in [0, levels), channels last.

    There are two encodings to [−1, 1], each with its own bin width:

    * `encode` puts level k at 2k / (L − 1) − 1 and the outermost levels at ±1, for discretised decoders (Salimans et
      al. 2017);
    * `dequantise` gives 2(k + u) / L − 1 with u in [0, 1), so that the bins tile [−1, 1], for densities (Theis et al.
      2016).
    """

    name: str
    shape: tuple[int, int, int]  # height, width, channels
    levels: int
    classes: int = 0  # 0: no labels
    # The other fields of a row: (name, TEXT or a type of numbers). Comparisons of specs ignore them.
    fields: tuple[tuple[str, str], ...] = dataclasses.field(default=(), compare=False)
    content: str = dataclasses.field(default='', compare=False)  # a hash of the source files; '': unknown

    def __str__(self) -> str:
        classes = f', {self.classes} classes' if self.classes else ''
        return f'{self.name} ({"×".join(map(str, self.shape))}, {self.levels} levels{classes})'

    def field(self, name: str) -> str:
        """The kind of the row's field with this name, apart from image and label; '' if there is none."""
        return dict(self.fields).get(name, '')

    def of_size(self, size: tuple[int, int]) -> 'DataSpec':
        """The same data with images of another height and width.

        Raises:
          UserError: they do not divide the height and width of the data.
        """
        height, width, channels = self.shape
        if len(size) != 2 or min(size) < 1 or height % size[0] or width % size[1]:
            told = '×'.join(map(str, size))
            raise UserError(f'Images of {told} cannot be made from {self.name}: their sides must divide its '
                            f'{height}×{width} pixels.')  # fmt: skip
        return dataclasses.replace(self, shape=(*size, channels))

    def resized_from(self, data: 'DataSpec') -> dict[str, str]:
        """The protocol's entry for images that are smaller than the data's; empty for other images."""
        size = f'{self.shape[0]}×{self.shape[1]}, means over areas rounded to levels'
        return {} if self.shape == data.shape else {'resized': size}

    @property
    def is_plane(self) -> bool:
        """Whether the images are points (`genbench.data.plane`)."""
        return self.shape == (1, 2, 1)

    @property
    def num_dims(self) -> int:
        return math.prod(self.shape)

    @property
    def log_bin_width(self) -> float:
        """The natural logarithm of the width of one dequantised level, 2 / L."""
        return math.log(2 / self.levels)

    def encode(self, images: jax.Array) -> jax.Array:
        """Map integers to real values, with the outermost levels at −1 and 1."""
        return images.astype(jnp.float32) * (2 / (self.levels - 1)) - 1

    def decode(self, x: jax.Array) -> jax.Array:
        """The level nearest to each encoded value, clipped to the range. This inverts `encode`."""
        return jnp.clip(jnp.round((x + 1) * ((self.levels - 1) / 2)), 0, self.levels - 1).astype(jnp.int32)

    def dequantise(self, images: jax.Array, u: jax.Array | float = 0.5) -> jax.Array:
        """Map integers to the point at fraction `u` of their bin; 0.5 is the centre."""
        return (images.astype(jnp.float32) + u) * (2 / self.levels) - 1

    def quantise(self, x: jax.typing.ArrayLike) -> jax.Array:
        """The level whose bin holds each value, clipped to the range. This inverts `dequantise` for u in (0, 1)."""
        return jnp.clip(jnp.floor((jnp.asarray(x) + 1) * (self.levels / 2)), 0, self.levels - 1).astype(jnp.int32)

    @property
    def continuous(self) -> 'DataSpec':
        """The same data with a `decode` and `quantise` that neither round nor clip, for small changes of images."""
        return Continuous(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def bits_per_dim(self, nats: Any) -> Any:
        """Convert the log-likelihood of a discrete image in nats to bits per dimension."""
        return -nats / (self.num_dims * math.log(2))

    def density_nats(self, nats: float) -> float:
        """Convert the log-likelihood of a discrete image to the negative log-density in [−1, 1]^dims, in nats."""
        return self.num_dims * self.log_bin_width - nats


class Continuous(DataSpec):
    """Images with real values, in units of levels."""

    def decode(self, x: jax.Array) -> jax.Array:
        return (x + 1) * ((self.levels - 1) / 2)

    def quantise(self, x: jax.typing.ArrayLike) -> jax.Array:
        return (jnp.asarray(x) + 1) * (self.levels / 2) - 0.5


def resize(images: Any, shape: tuple[int, ...]) -> Any:
    """Integer images (batch, height, width, channels) in which each pixel is the mean of the area that it replaces.

    The mean is rounded to the nearest level and ties are rounded up, to the level that holds the mean of the
    dequantised pixels. Host and devices give the same integers, and the type stays the same.

    Args:
      shape: the shape of the result, (height, width, channels), which must divide that of `images`.
    """
    count, (height, width, channels) = len(images), shape
    if images.shape[1:] == tuple(shape):
        return images
    down, across = images.shape[1] // height, images.shape[2] // width
    areas = images.reshape(count, height, down, width, across, channels)
    return ((areas.sum((2, 4), np.uint32) + down * across // 2) // (down * across)).astype(images.dtype)
