"""From a density of real images to a probability of integer ones, by uniform dequantisation.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, 2016, section 3.1 (one draw);
Y. Burda, R. Grosse, R. Salakhutdinov, Importance Weighted Autoencoders, 2016 (K draws tighten the bound).
"""

import math
from collections.abc import Callable

import jax

from genbench import rng
from genbench.data.spec import DataSpec

Array = jax.Array


def uniform_draw(spec: DataSpec, images: Array, keys: Array) -> Array:
    """A point in the bins of each integer image, in the encoding of `spec.dequantise`; one key an image."""
    return spec.dequantise(images, jax.vmap(lambda key: jax.random.uniform(key, spec.shape))(keys))


def uniform_bound(
    spec: DataSpec, log_density: Callable[[Array, Array], Array], images: Array, keys: Array, draws: int
) -> Array:
    """log of 1/K Σ_k p(x_k) (2/L)^d in nats (batch,), x_k uniform in the bin of the integer image.

    The mean over k estimates log P(image) = log ∫ p over the bin from below on average, and the more tightly the
    larger K is. The first draws of a larger K are those of a smaller one.

    Args:
      log_density: (x (batch, …) in the encoding of `spec.dequantise`, one key an image) → nats (batch,). The keys are
        the same in every draw: what noise a density has is then shared by an image's draws, and the logarithm of
        their mean does not pick the luckiest.
      images: integers (batch, height, width, channels).
      keys: one key an image.
      draws: K.
    """

    keys_bins, keys_density = rng.named(keys, 'bins'), rng.named(keys, 'density')

    def one_draw(index: Array) -> Array:
        return log_density(uniform_draw(spec, images, rng.numbered(keys_bins, index)), keys_density)

    log_p = jax.scipy.special.logsumexp(jax.lax.map(one_draw, jax.numpy.arange(draws)), axis=0)
    return log_p - math.log(draws) + spec.num_dims * spec.log_bin_width
