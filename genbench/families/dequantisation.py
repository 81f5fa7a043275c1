"""From a density in a data space to a probability of integer images: by uniform dequantisation, or a first stage.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, 2016, section 3.1 (one draw);
Y. Burda, R. Grosse, R. Salakhutdinov, Importance Weighted Autoencoders, 2016 (K draws tighten the bound).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data.conditions import Given
from genbench.families.base import Likelihood, Networks
from genbench.families.spaces import Space

Array = jax.Array
LogDensity = Callable[[Array, Array], Array]  # (x (batch, …) in a data space, keys) → nats (batch,)
Density = Callable[[Networks, Given], LogDensity]  # of images with these conditions; draws share what comes first


def bound(space: Space, networks: Any, log_density: LogDensity, images: Array, keys: Array, draws: int) -> Array:
    """log of 1/K Σ_k p(x_k) exp(w_k) in nats (batch,), x_k and w_k the draws of the integer image in its space.

    Of pixels, x_k is uniform in the image's bin of volume exp(w_k) = (2/L)^d. The mean over k estimates P(image)
    without bias, so its logarithm is below log P(image) on average, and the nearer to it the larger K is. The first
    draws of a larger K are those of a smaller one.

    Args:
      networks: of the model, which a space may ask.
      log_density: gets the same keys, one an image, in every draw: what noise a density has is then shared by an
        image's draws, and the logarithm of their mean does not pick the luckiest.
      images: integers (batch, height, width, channels).
      keys: one key an image.
      draws: K.
    """
    keys_bins, keys_density = rng.named(keys, 'dequantisation'), rng.named(keys, 'density')

    def one_draw(index: Array) -> Array:
        x, weight = space.draw(networks, images, rng.numbered(keys_bins, index))
        return log_density(x, keys_density) + weight

    log_p = jax.scipy.special.logsumexp(jax.lax.map(one_draw, jnp.arange(draws)), axis=0)
    return log_p - math.log(draws)


def smoothing_cost(ratio: float, points: int = 10_000) -> float:
    """What a pixel of certain level loses, in nats, where the density of x + σ ε is taken for that of x.

    x is uniform in one bin, and σ is `ratio` of the bin's width: E −log(Φ((1 − u) / ratio) − Φ(−u / ratio)) over u
    uniform in [0, 1]. No law of x that is flat inside the bins loses more on average.
    """
    scale = ratio * math.sqrt(2)
    places = ((np.arange(points) + 0.5) / points / scale).tolist()
    masses = [(math.erf(1 / scale - place) + math.erf(place)) / 2 for place in places]
    return -float(np.log(masses).mean())


def likelihoods(
    method: str,
    kind: str,
    space: Space,
    draws: int,
    density: Density,
    protocol: Mapping[str, Any] | None = None,
    refined: Density | None = None,
    parts: Mapping[str, float] | None = None,
) -> tuple[Likelihood, ...]:
    """The bounds that a density gives: `method`_1 of one draw, as the field reports it, and `method`_K of K draws.

    Args:
      kind: of the rows. A density that is known without error gives lower bounds, an estimated one estimates.
      draws: K; with 1 there is one bound only.
      refined: the density with a finer discretisation.
      parts: of every image's number, in nats, by name.
    """

    def score(density: Density, count: int) -> Callable[..., Array | Mapping[str, Array]]:
        def log_prob(networks: Networks, images: Array, given: Given, keys: Array):
            total = bound(space, networks, density(networks, given), images, keys, count)
            if not parts:
                return total
            return {'log_prob': total, **{name: jnp.full_like(total, part) for name, part in parts.items()}}

        return log_prob

    return tuple(
        Likelihood(
            space.method(f'{method}_{count}'), kind, score(density, count),
            {**space.protocol(count), **(protocol or {})},
            refined=score(refined, count) if refined else None,
        )
        for count in dict.fromkeys((1, draws))
    )  # fmt: skip
