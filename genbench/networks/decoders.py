"""Observation models: log-probabilities of integer images under a decoder's outputs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


class MixtureParts(NamedTuple):
    """Parameters of a mixture of K logistics over the channels of a pixel, from `split_mixture`."""

    logits: Array  # (…, K)
    mean: Array  # (…, channels, K), where all channels before have the value 0
    log_scale: Array  # (…, channels, K)
    slope: Array  # (…, channels, channels, K): of a channel's mean by the value of each channel before it, or 0


def mixture_size(channels: int, components: int) -> int:
    """The number of a pixel's outputs that `split_mixture` reads."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def split_mixture(h: Array, channels: int, components: int) -> MixtureParts:
    """Outputs (…, `mixture_size`) → parameters. Scales are at least e⁻⁷, and slopes between −1 and 1."""
    h = h.reshape(*h.shape[:-1], -1, components)
    logits, mean, log_scale, slopes = jnp.split(h, np.cumsum([1, channels, channels]), axis=-2)
    below = np.tril_indices(channels, -1)
    slope = jnp.zeros((*h.shape[:-2], channels, channels, components)).at[..., below[0], below[1], :]
    return MixtureParts(logits[..., 0, :], mean, jnp.maximum(log_scale, -7.0), slope.set(jnp.tanh(slopes)))


def logistic_mixture(parts: MixtureParts, values: Array, images: Array, levels: int) -> Array:
    """log p of each pixel (…) under a mixture of discretised logistics (Salimans et al. 2017, equations 2 and 3).

    A component gives the channels of a pixel independent logistics, except that their means depend linearly on the
    values of the channels before them.

    Args:
      values: the encoded images, (…, channels).
      images: the integer images, (…, channels).
    """
    mean = parts.mean + jnp.einsum('...cdk,...d->...ck', parts.slope, values)
    log_p = discretised_logistic(mean, parts.log_scale, images[..., None], levels).sum(-2)
    return jax.nn.logsumexp(jax.nn.log_softmax(parts.logits) + log_p, axis=-1)


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
