"""Solvers that look at places between t and s: singlestep DPM-Solver++.

A step to σ = 0 has no such places, since λ = log α / σ is infinite there. It is of first order.
"""

import jax
import jax.numpy as jnp

from genbench.interpolants.multistep import along, exact, half_log_snr
from genbench.interpolants.steps import Step

Array = jax.Array


def dpmpp_2s(step: Step) -> Array:
    """DPM-Solver++(2S) with r_1 = 1/2 (Lu et al. 2022, DPM-Solver++, algorithm 1)."""
    schedule, x_t, t, s = step.schedule, step.x_t, step.t, step.s
    x = step.predict(x_t, t).x

    def higher():
        _, u = dpmpp_2s_times(step)
        middle = step.predict(along(schedule, x_t, x, t, u), u).x
        return along(schedule, x_t, middle, t, s)  # 1 / 2r of it, and 1 − 1 / 2r of x

    return jax.lax.cond(schedule.sigma(s) > 0, higher, lambda: along(schedule, x_t, x, t, s))


def dpmpp_3s(step: Step) -> Array:
    """DPM-Solver++ of third order with r_1 = 1/3, r_2 = 2/3 (Lu et al. 2022, DPM-Solver, algorithm 2, for images)."""
    schedule, x_t, t, s = step.schedule, step.x_t, step.t, step.s
    x = step.predict(x_t, t).x

    def higher():
        _, u, v = dpmpp_3s_times(step)
        h = half_log_snr(schedule, s) - half_log_snr(schedule, t)
        first = step.predict(along(schedule, x_t, x, t, u), u).x
        (weight,) = exact(h * 2 / 3, [0.5])
        second = step.predict(along(schedule, x_t, x + weight * (first - x), t, v), v).x
        (weight,) = exact(h, [2 / 3])
        return along(schedule, x_t, x + weight * (second - x), t, s)

    return jax.lax.cond(schedule.sigma(s) > 0, higher, lambda: along(schedule, x_t, x, t, s))


def dpmpp_2s_times(step: Step) -> tuple[Array, ...]:
    return step.t, _between(step, 1 / 2)


def dpmpp_3s_times(step: Step) -> tuple[Array, ...]:
    return step.t, _between(step, 1 / 3), _between(step, 2 / 3)


def _between(step: Step, share: float) -> Array:
    """The time at this share of the way from λ_t to λ_s; 0 if s is."""
    start, end = (half_log_snr(step.schedule, time) for time in (step.t, step.s))
    found = step.schedule.time_at(jnp.exp(-(start + share * (end - start))))
    return jnp.where(step.schedule.sigma(step.s) > 0, found, 0.0)
