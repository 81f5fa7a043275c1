"""Turn a density in a data space into a probability of integer images, by dequantisation or a first stage.

L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, 2016, section 3.1 (one draw);
Y. Burda, R. Grosse, R. Salakhutdinov, Importance Weighted Autoencoders, 2016 (K draws tighten the bound).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data.conditions import Given
from genbench.families.base import Likelihood, Networks
from genbench.families.spaces import Pixels, Space

Array = jax.Array
LogDensity = Callable[[Array, Array], Array]  # (x (batch, …) in a data space, keys) → nats (batch,)
Density = Callable[[Networks, Given], LogDensity]  # the density given these conditions; all draws share the first call


@dataclasses.dataclass(frozen=True)
class VariationalPixels(Pixels):
    """Pixels whose places in their bins are drawn by the network 'dequantiser', which sees the image.

    J. Ho et al., Flow++, 2019, equation 12: log P(image) ≥ E log p(x) − log q(x | image).
    """

    def encode(self, networks: Any, rows: Mapping[str, Any]) -> Array:
        return self.draw(networks, rows['image'], rows['key'])[0]

    def draw(self, networks: Any, images: Array, keys: Array) -> tuple[Array, Array]:
        places, log_q = networks['dequantiser'](self.spec.dequantise(images), rng.normal(keys, 'places', self.shape))
        return self.spec.dequantise(images, places), self.log_volume - log_q

    def protocol(self, draws: int) -> dict[str, Any]:
        return {**super().protocol(draws), 'dequantisation': 'variational'}


def bound(space: Space, networks: Any, log_density: LogDensity, images: Array, keys: Array, draws: int) -> Array:
    """log of 1/K Σ_k p(x_k) exp(w_k) in nats, (batch,); x_k with weight w_k is draw k of the image in its space.

    For pixels, x_k is uniform in the image's bin, whose volume is exp(w_k) = (2/L)^d. The mean over k is an unbiased
    estimate of P(image). Its logarithm is therefore below log P(image) on average, and closer for a larger K. A larger
    K adds draws to those of a smaller one.

    Args:
      networks: the model's networks, which a space may evaluate.
      log_density: gets the same keys, one per image, in every draw. An image's draws then share the noise of an
        estimated density, and the logarithm of their mean does not favour the luckiest draw.
      images: integers (batch, height, width, channels).
      keys: one key per image.
      draws: K.
    """
    keys_density = rng.named(keys, 'density')

    def one_draw(index: Array) -> Array:
        x, weight = draw(space, networks, images, keys, index)
        return log_density(x, keys_density) + weight

    log_p = jax.scipy.special.logsumexp(jax.lax.map(one_draw, jnp.arange(draws)), axis=0)
    return log_p - math.log(draws)


def draw(space: Space, networks: Any, images: Array, keys: Array, index: Array | int) -> tuple[Array, Array]:
    """Draw number `index` of `bound`: x and its weight w."""
    return space.draw(networks, images, rng.numbered(rng.named(keys, 'dequantisation'), index))


def smoothing_cost(ratio: float, points: int = 10_000) -> float:
    """The loss in nats, for a pixel whose level is certain, when the density of x + σ ε stands in for that of x.

    x is uniform in one bin, and σ is `ratio` times the bin's width. The loss is
    E −log(Φ((1 − u) / ratio) − Φ(−u / ratio)) with u uniform in [0, 1]. No distribution of x that is flat inside the
    bins loses more on average.
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
    """The bounds from a density: `method`_1 with one draw, as papers report it, and `method`_K with K draws.

    Args:
      kind: the kind of the results: lower bounds if the density is exact, estimates if it is estimated.
      draws: K; with K = 1 there is only one bound.
      refined: the density with a finer discretisation.
      parts: named parts, in nats, that every image's number contains.
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
