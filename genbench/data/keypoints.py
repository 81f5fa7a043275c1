"""Keypoints of images without a detector: the centres of mass of their ink in the four quadrants, drawn as dots."""

import jax
import jax.numpy as jnp

LEAST = 0.05  # the share of an image's ink that a quadrant needs to have a keypoint


def drawn(ink: jax.Array) -> jax.Array:
    """Keypoints of images (n, height, width) of ink, not negative, as pictures (n, height, width) of dots.

    Of the halves of an odd side the first is the smaller one. A dot falls linearly from 1 at the keypoint to 0 at a
    distance of an eighth of the shorter side, but at least one pixel, so that keypoints between pixels are drawn where
    they are. Dots that overlap do not add up. An empty image has no keypoints.
    """
    height, width = ink.shape[1:]
    radius = max(1.0, min(height, width) / 8)
    y, x = jnp.arange(height)[:, None], jnp.arange(width)
    whole = ink.sum((1, 2), keepdims=True)
    picture = jnp.zeros_like(ink)
    for low in (y < height // 2, y >= height // 2):
        for left in (x < width // 2, x >= width // 2):
            part = ink * (low & left)
            mass = part.sum((1, 2), keepdims=True)
            row, column = ((part * place).sum((1, 2), keepdims=True) / jnp.maximum(mass, 1e-9) for place in (y, x))
            dot = jnp.maximum(1 - jnp.hypot(y - row, x - column) / radius, 0)
            picture = jnp.maximum(picture, jnp.where((mass > 0) & (mass >= LEAST * whole), dot, 0))
    return picture
