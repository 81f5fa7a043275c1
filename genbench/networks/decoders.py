"""Observation models: log-probabilities of integer images under a decoder's outputs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def categorical(logits: Array, images: Array) -> Array:
    """log p of each pixel, from logits (…, levels) and integer images (…)."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), images[..., None], axis=-1)[..., 0]


def discretised_logistic(mean: Array, log_scale: Array, images: Array, levels: int) -> Array:
    """log p of each pixel under a logistic cut into bins of half-width 1 / (L − 1) around 2k / (L − 1) − 1.

    The outermost bins are open, so all L probabilities sum to one (Salimans et al. 2017, equation 2).
    """
    centre = 2 * images / (levels - 1) - 1
    return _discretised(jax.nn.log_sigmoid, mean, jnp.exp(log_scale), centre, 1 / (levels - 1), images, levels)


def discretised_normal(mean: Array, scale: Array, images: Array, levels: int) -> Array:
    """log p of each pixel under N(mean, scale²), cut into bins that tile [−1, 1] with open outermost bins.

    This is DDPM's decoder (Ho et al. 2020, equation 13) for images at the centres (2k + 1) / L − 1.
    """
    centre = (2 * images + 1) / levels - 1
    return _discretised(jax.scipy.special.log_ndtr, mean, scale, centre, 1 / levels, images, levels)


def _discretised(
    log_cdf: Callable[[Array], Array], mean: Array, scale: Array, centre: Array, half_width: float, images, levels: int
) -> Array:
    """log(F(upper) − F(lower)) for a symmetric distribution, evaluated in the tail where F is small."""
    lower, upper = (centre - half_width - mean) / scale, (centre + half_width - mean) / scale
    mirrored = lower + upper > 0
    low, high = jnp.where(mirrored, -upper, lower), jnp.where(mirrored, -lower, upper)
    open_below = images == jnp.where(mirrored, levels - 1, 0)
    open_above = images == jnp.where(mirrored, 0, levels - 1)
    log_high = jnp.where(open_above, 0.0, log_cdf(high))
    gap = jnp.minimum(log_cdf(low) - log_high, -1e-7)
    return jnp.where(open_below, log_high, log_high + jnp.log(-jnp.expm1(gap)))
