"""Augmentation that does not leak: images are changed by random maps, and the model is told which.

Told of no change, the model draws images as the data have them. T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating
the Design Space of Diffusion-Based Generative Models, 2022, appendix F.2: mirroring left to right with probability one
half; and each with probability p mirroring up and down, scaling, rotation, scaling along one direction, and shifts.

Differs from the paper: values between pixels are bilinear, where the paper's filter is a wavelet's; images are rounded
to levels, for families here begin with integers.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from genbench import rng

Array = jax.Array

PARAMETERS = 9  # what a model is told of an image's change; zeros for none
SCALE, SHIFT = 0.2, 0.125  # standard deviations: of the binary logarithm of a scale, and of a shift in sides


def augment(images: Array, keys: Array, probability: float) -> tuple[Array, Array]:
    """Changed images, and what was done to each (batch, PARAMETERS).

    Args:
      images: integers (batch, height, width, channels).
      keys: one an image.
      probability: of each change but mirroring left to right.
    """
    told = _draw(keys, probability)
    changed = jax.vmap(_warp)(images.astype(jnp.float32), told)
    return jnp.round(changed).astype(images.dtype), told


def _draw(keys: Array, probability: float) -> Array:
    def some(name: str, values: Array) -> Array:
        chosen = rng.uniform(keys, f'whether {name}') < probability
        return jnp.where(chosen, values, 0.0)

    coin = lambda name: (rng.uniform(keys, name) < 0.5).astype(jnp.float32)  # noqa: E731
    angle = lambda name: jnp.pi * (2 * rng.uniform(keys, name) - 1)  # noqa: E731
    turn, stretch = some('rotation', angle('rotation')), some('stretch', rng.normal(keys, 'stretch'))
    along = coin('stretch turned') * angle('stretch direction')
    shifts = rng.normal(keys, 'shift', (2,))
    return jnp.stack([
        coin('left and right'), some('up and down', coin('up and down')), some('scale', rng.normal(keys, 'scale')),
        jnp.cos(turn) - 1, jnp.sin(turn), stretch * jnp.cos(along), stretch * jnp.sin(along),
        some('shift', shifts[:, 0]), some('shift', shifts[:, 1]),
    ], axis=-1)  # fmt: skip


def _warp(image: Array, told: Array) -> Array:
    """The image mirrored, then scaled, turned, stretched and shifted about its middle, and continued by reflection."""
    height, width, _ = image.shape
    image = jnp.where(told[0] > 0, image[:, ::-1], image)
    image = jnp.where(told[1] > 0, image[::-1], image)
    down, right = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing='ij'
    )
    right, down = right - told[7] * SHIFT * width, down - told[8] * SHIFT * height
    amount, along = jnp.hypot(told[5], told[6]), jnp.arctan2(told[6], told[5])
    right, down = _turned(right, down, -along)
    right, down = right * 2 ** (-SCALE * amount), down * 2 ** (SCALE * amount)
    right, down = _turned(right, down, along)
    right, down = _turned(right, down, -jnp.arctan2(told[4], told[3] + 1))
    share = 2 ** (-SCALE * told[2])
    place = [down * share + (height - 1) / 2, right * share + (width - 1) / 2]
    warped = jax.vmap(lambda one: map_coordinates(one, place, order=1, mode='mirror'), -1, -1)(image)
    return jnp.where(jnp.any(told[2:] != 0), warped, image)


def _turned(right: Array, down: Array, angle: Array) -> tuple[Array, Array]:
    return right * jnp.cos(angle) - down * jnp.sin(angle), right * jnp.sin(angle) + down * jnp.cos(angle)
