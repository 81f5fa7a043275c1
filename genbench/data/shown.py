"""Pictures of images (batch, height, width, channels) in [−1, 1] that models may be conditioned on."""

import jax
import jax.numpy as jnp

from genbench import rng

Array = jax.Array


def averaged(x: Array, side: int) -> Array:
    """The mean over squares with sides of this many pixels, which divide the image's, at the original size."""
    n, height, width, channels = x.shape
    small = x.reshape(n, height // side, side, width // side, side, channels).mean((2, 4))
    return small.repeat(side, 1).repeat(side, 2)


def sobel(x: Array) -> Array:
    """The length of the Sobel gradient of the grey image, divided by 8: 1 at a straight edge from −1 to 1."""
    grey = jnp.pad(x.mean(-1), ((0, 0), (1, 1), (1, 1)), mode='edge')
    rows = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    columns = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    across, down = rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2]
    return (jnp.sqrt(jnp.square(across) + jnp.square(down)) / 8)[..., None]


def masked(x: Array, keys: Array, rows: int, columns: int) -> Array:
    """The image with zeros in a rectangle of this size at a random place, and a channel that is 1 outside of it."""
    height, width = x.shape[1:3]
    top = rng.integers(keys, 'top', 0, height - rows + 1)[:, None, None]
    left = rng.integers(keys, 'left', 0, width - columns + 1)[:, None, None]
    down, across = jnp.arange(height)[:, None] - top, jnp.arange(width) - left
    known = 1.0 - ((down >= 0) & (down < rows) & (across >= 0) & (across < columns))[..., None]
    return jnp.concatenate([x * known, known], axis=-1)
