"""Dormand and Prince's pair of orders 5 and 4 with an adaptive step, in a fixed number of tries.

Y. Song et al. 2021, section 4.3, solve the probability-flow ODE so. Here it is the straightened one (`Schedule.
straightened`), u = x_t / c over b = σ / c, from t_max to t_min. The last step, to σ = 0, is Euler's. Each image has its
own steps, whatever its batch contains.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from scipy.integrate import RK45

from genbench.interpolants.schedules import expand
from genbench.interpolants.steps import Step, slope

Array = jax.Array
FIRST = 0.1  # the length of the first step, as a fraction of b


class Tried(NamedTuple):
    """A step that has been tried and not been judged yet. Its error still lacks the slope at its end.

    Attributes:
      u, b, slope: at its beginning, (batch, …), (batch,) and (batch, …). A negative b means that nothing was tried.
      length: in b, (batch,). It is zero for an image that has arrived.
      error: without the last slope, (batch, …).
    """

    u: Array
    b: Array
    slope: Array
    length: Array
    error: Array


def nothing_tried(start: Array) -> Tried:
    zero, none = jnp.zeros_like(start), -jnp.ones(len(start), start.dtype)
    return Tried(zero, none, zero, jnp.zeros_like(none), zero)


def rk45(step: Step, tried: Tried) -> tuple[Array, Tried]:
    """Judge the last try by the slope at its end, x_t, and try the next one from there or, if it failed, from where it
    began. A try takes six evaluations, for the slope at its end is the first one of the next."""
    schedule, ends = step.schedule, jnp.asarray([step.schedule.t_min, step.schedule.t_max], step.x_t.dtype)
    low, high = schedule.straightened(ends)[1]
    fresh = tried.b < 0

    def slope_at(u, b):
        t = schedule.time_of(b)
        return slope(schedule, step.denoise(expand(schedule.straightened(t)[0], u) * u, t))

    b = jnp.where(fresh, high, tried.b - tried.length)
    u = step.x_t / expand(schedule.straightened(schedule.time_of(b))[0], step.x_t)
    last = slope(schedule, step.denoise(step.x_t, schedule.time_of(b)))
    size = step.options.tolerance * (1 + jnp.maximum(jnp.abs(u), jnp.abs(tried.u)))
    error = (tried.error - float(RK45.E[6]) * expand(tried.length, u) * last) / size
    norm = jnp.sqrt(jnp.square(error).reshape(len(u), -1).mean(1))
    taken = fresh | (norm <= 1)
    factor = jnp.clip(0.9 * jnp.maximum(norm, 1e-10) ** -0.2, 0.2, 10)
    u, k = (jnp.where(expand(taken, u), new, old) for new, old in ((u, tried.u), (last, tried.slope)))
    b = jnp.where(taken, b, tried.b)
    length = jnp.minimum(jnp.where(fresh, FIRST * b, tried.length * factor), jnp.maximum(b - low, 0))
    far = expand(length, u)

    def attempt():
        slopes = [k]
        for row, place in zip(RK45.A[1:], RK45.C[1:], strict=True):
            slopes.append(slope_at(u - far * _sum(row, slopes), b - float(place) * length))
        after = schedule.straightened(schedule.time_of(b - length))[0]
        moved = expand(after, u) * (u - far * _sum(RK45.B, slopes))
        return moved, Tried(u, b, k, length, -far * _sum(RK45.E, slopes))

    def arrive():
        return u - expand(b, u) * k, tried

    return jax.lax.cond(step.ahead > 1, attempt, arrive)


def _sum(weights: Array, slopes: list[Array]) -> Array:
    return sum((float(w) * one for w, one in zip(weights, slopes, strict=False) if w), jnp.zeros(()))
