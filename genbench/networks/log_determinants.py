"""log |det (I + J)| for the Jacobian J of a map g whose Lipschitz constant is below one.

R. T. Q. Chen et al., Residual Flows for Invertible Generative Modeling, 2019. log det (I + J) = Σ_k (−1)^{k+1}
tr(Jᵏ) / k. `estimate` draws the number of terms and weighs them so that the expected sum is the series (theorem 1); it
estimates the traces by vᵀ Jᵏ v with normal v (Hutchinson). The probability that term k is drawn falls faster than any
λᵏ, so the variance is infinite for every spectral radius λ > 0: most estimates lie close to the truth, and very rare
ones far from it. An average of few estimates misses the rare ones and seems biased, the more so the closer λ is to one
and the fewer terms are certain. Its gradient comes from a Neumann series, whose terms need no gradient
themselves (theorem 2). `by_jacobian` computes the determinant.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from genbench import flops

Array = jax.Array
Map = Callable[[Any, Array], Array]  # g(parameters, x)

RATE = 2.0  # mean of the Poisson distribution of the number of terms beyond the certain ones, as in the official code
MOST = 40  # such terms are weighed at most; numbers above 20 have a probability below 2⁻⁴⁶ and are not drawn
GRID = 2.0**-23  # the distance between uniform numbers in float32
REACHED = stats.poisson.sf(np.arange(MOST + 1) - 1, RATE).astype(np.float32)  # P(N ≥ k) for k = 0, 1, …


def poisson(uniform: Array, fine: Array) -> Array:
    """Numbers N of terms by the inverse of the distribution function.

    Args:
      uniform: in [0, 1).
      fine: others, for the place between neighbours on the grid of `uniform`. Without them N would end at 13.
    """
    return ((1 - uniform - GRID * fine)[..., None] < REACHED[1:]).sum(-1)


def weight(k: Array, counts: Array, certain: int) -> Array:
    """The factor of term k ≥ 1: 1 up to `certain`, then 1 / P(N ≥ k − certain) where N reaches k − certain, and else 0.

    Args:
      counts: the numbers N that were drawn.
    """
    beyond = jnp.maximum(k - certain, 0)
    return jnp.where(counts >= beyond, 1 / jnp.asarray(REACHED)[jnp.minimum(beyond, MOST)], 0.0)


def by_jacobian(g: Map, parameters: Any, x: Array) -> tuple[Array, Array]:
    """g(x), and log |det (I + dg/dx)| (batch,) of x (batch, …) by the Jacobian."""
    size = x[0].size

    def one(x: Array) -> Array:
        return jax.jacfwd(lambda v: g(parameters, v.reshape(1, *x.shape))[0].reshape(size))(x.reshape(size))

    return g(parameters, x), jnp.linalg.slogdet(jnp.eye(size) + jax.vmap(one)(x))[1]


def estimate(
    g: Map, parameters: Any, x: Array, noise: Array, counts: Array, certain: int, usual: float
) -> tuple[Array, Array]:
    """g(x), and an estimate (batch,) of log |det (I + dg/dx)|, of infinite variance, with an estimate of its gradient.

    Args:
      noise: v, normal with mean 0 and variance 1, shaped like x.
      counts: N for each image (batch,), or one for all.
      certain: the number of terms that are always summed, before those that are drawn.
      usual: the number of terms that the longest series usually has, for the count of operations.
    """
    fixed = jax.lax.stop_gradient((parameters, x))
    _, pull = jax.vjp(lambda x: g(fixed[0], x), fixed[1])
    axes = tuple(range(1, x.ndim))

    def term(state: Any) -> Any:
        k, power, total, neumann = state
        (power,) = pull(power)  # (Jᵀ)ᵏ v
        factor = jnp.where(k % 2, -1.0, 1.0) * weight(k, counts, certain)
        total = total - factor / k * (power * noise).sum(axes)
        return k + 1, power, total, neumann + factor.reshape(-1, *(1 for _ in axes)) * power

    last, start = certain + counts.max(), (jnp.array(1), noise, jnp.zeros(len(x)), noise)
    with flops.expected_trips(usual):
        *_, total, neumann = jax.lax.while_loop(lambda state: state[0] <= last, term, start)
    y, pushed = jax.jvp(lambda x: g(parameters, x), (x,), (noise,))
    slope = (jax.lax.stop_gradient(neumann) * pushed).sum(axes)  # its gradient is that of the logarithm
    return y, jax.lax.stop_gradient(total - slope) + slope
