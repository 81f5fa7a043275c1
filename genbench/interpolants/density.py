"""log p(x) by the probability-flow ODE (Y. Song et al. 2021, equations 39–40; Chen et al. 2018, equation 8)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genbench.interpolants.schedules import Schedule

Array = jax.Array
Velocity = Callable[[Array, Array], Array]  # (x_t, t (batch,)) → dx_t/dt


def exact_divergence(slope: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """Slope and its divergence, one forward derivative for each dimension: d × the cost of Hutchinson's estimate."""
    size = x[0].size

    def column(index):
        direction = jnp.zeros((size,)).at[index].set(1.0).reshape(x.shape[1:])
        return jax.jvp(slope, (x,), (jnp.broadcast_to(direction, x.shape),))[1].reshape(len(x), size)[:, index]

    return slope(x), jax.lax.map(column, jnp.arange(size)).sum(0)


def hutchinson_divergence(slope: Callable[[Array], Array], x: Array, probes: Array) -> tuple[Array, Array]:
    """Slope and vᵀ ∂f/∂x v averaged over the probes (count, batch, …) (Hutchinson 1990; Grathwohl et al. 2019)."""
    value, push = jax.linearize(slope, x)
    products = jax.vmap(lambda v: (v * push(v)).reshape(len(v), -1).sum(1))(probes)
    return value, products.mean(0)


def rademacher(keys: Array, count: int, shape: tuple[int, ...]) -> Array:
    """±1 probes (count, batch, …), drawn once for each trajectory from each image's own key."""
    draw = lambda key: jax.random.rademacher(key, (count, *shape), jnp.float32)  # noqa: E731
    return jnp.moveaxis(jax.vmap(draw)(keys), 1, 0)


def log_density(schedule: Schedule, velocity: Velocity, x: Array, keys: Array, *, num_steps: int, probes: int) -> Array:
    """log p of x at t_min in nats, shape (batch,): Heun's rule from t_min to t_max, and the Gaussian prior there.

    Steps are spaced evenly in the cube root of t, so that small times, where the drift bends, get more of them.

    Args:
      velocity: drift of the probability-flow ODE.
      keys: one key an image, for the probes.
      probes: Hutchinson probes for each image; 0 takes the exact divergence.
    """
    directions = rademacher(keys, probes, x.shape[1:]) if probes else None

    def drift(x, t):
        slope = lambda x: velocity(x, jnp.full(len(x), t))  # noqa: E731
        return exact_divergence(slope, x) if directions is None else hutchinson_divergence(slope, x, directions)

    def body(index, carry):
        x, total = carry
        t, s = time(index / num_steps), time((index + 1) / num_steps)
        slope, divergence = drift(x, t)
        slope_end, divergence_end = drift(x + (s - t) * slope, s)
        return x + (s - t) * (slope + slope_end) / 2, total + (s - t) * (divergence + divergence_end) / 2

    low, high = schedule.t_min, schedule.t_max

    def time(fraction):
        return (low ** (1 / 3) + fraction * (high ** (1 / 3) - low ** (1 / 3))) ** 3

    end, total = jax.lax.fori_loop(0, num_steps, body, (x, jnp.zeros(len(x))))
    sigma = schedule.sigma(jnp.asarray(high))
    prior = jax.scipy.stats.norm.logpdf(end, scale=sigma).reshape(len(x), -1).sum(1)
    return prior + total
