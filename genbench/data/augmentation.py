"""Non-leaking augmentation: random transformations change the images, and the model takes their parameters as input.

Given the parameters of no change, the model samples images like those in the data. The transformations are those of T.
Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative Models, 2022, appendix
F.2. Images are mirrored left to right with probability one half. Vertical mirroring, scaling, rotation, scaling along
one direction, and shifts each have probability p.

Differs from the paper: values between pixels are interpolated bilinearly, where the paper uses a wavelet filter. Images
are rounded to levels, since families here start from integers.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from genbench import rng

Array = jax.Array

PARAMETERS = 9  # number of parameters that describe an image's change; all are zero for no change
SCALE, SHIFT = 0.2, 0.125  # standard deviations of log2 of a scale, and of a shift as a fraction of the side


def augment(images: Array, keys: Array, probability: float) -> tuple[Array, Array]:
    """The changed images and the parameters of each change (batch, PARAMETERS).

    Args:
      images: integers (batch, height, width, channels).
      keys: one key per image.
      probability: the probability of each change except mirroring left to right.
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
    """Mirror the image, then scale, rotate, stretch and shift it about its centre; reflection continues the image."""
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
