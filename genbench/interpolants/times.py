"""Where the times of training come from: (schedule, one key an image) → times (batch,).

A time follows from its image's own key, and for `low_discrepancy` from its place in the batch as well, so that devices
do not matter. A family may put further samplers into a copy of `SAMPLERS`.
"""

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.interpolants.choices import Choice
from genbench.interpolants.schedules import Schedule
from genbench.ranges import ANY, COUNT, POSITIVE

Array = jax.Array


def uniform(schedule: Schedule, keys: Array) -> Array:
    """Even on the schedule's way to noise, in t or along its curve; what is too early for a network is at t_min."""
    return _on_the_way(schedule, rng.uniform(keys, 'time'))


def low_discrepancy(schedule: Schedule, keys: Array) -> Array:
    """Even between the ends of the trained times, one in each of as many equal parts as the batch has images.

    Kingma et al. 2021, appendix I.1, draw one offset for all images; here each has its own, from its own key. The parts
    are those of the micro-batch under accumulation.
    """
    first = schedule.t_min / schedule.t_max if schedule.curve is None else 0.0
    share = (jnp.arange(len(keys)) + rng.uniform(keys, 'time')) / len(keys)
    return schedule.time(first + (1 - first) * share)


def over_steps(schedule: Schedule, keys: Array, *, count: int) -> Array:
    """One of the times of `count` steps, all as likely (Ho et al. 2020, algorithm 1)."""
    return schedule.step(rng.integers(keys, 'time', 1, count + 1), count)


def logit_normal(schedule: Schedule, keys: Array, *, mean: float, deviation: float) -> Array:
    """The share s of the way has a normal log s / (1 − s) (Esser et al. 2024, section 3.1)."""
    return _on_the_way(schedule, jax.nn.sigmoid(mean + deviation * rng.normal(keys, 'time')))


def log_normal(schedule: Schedule, keys: Array, *, mean: float, deviation: float) -> Array:
    """The noise level σ / α has a normal logarithm (Karras et al. 2022, table 1), within the schedule's levels."""
    level = jnp.exp(mean + deviation * rng.normal(keys, 'time'))
    return jnp.clip(schedule.time_at(level), schedule.t_min, schedule.t_max)


def u_shaped(schedule: Schedule, keys: Array, *, a: float) -> Array:
    """The share s of the way has a density ∝ e^(a s) + e^(a (1 − s)): most times near both ends (Lee et al. 2024,
    section 4.1)."""
    place = jnp.arcsinh((2 * rng.uniform(keys, 'time') - 1) * jnp.sinh(a / 2)) / a
    return _on_the_way(schedule, 0.5 + place)


def _on_the_way(schedule: Schedule, share: Array) -> Array:
    return jnp.maximum(schedule.time(share), schedule.t_min)


SAMPLERS: dict[str, Choice] = {
    'uniform': Choice(uniform),
    'low_discrepancy': Choice(low_discrepancy, offers=('even times',)),
    'steps': Choice(over_steps, {'count': (1000, COUNT)}),
    'logit_normal': Choice(logit_normal, {'mean': (0.0, ANY), 'deviation': (1.0, POSITIVE)}),
    'u_shaped': Choice(u_shaped, {'a': (4.0, POSITIVE)}),
    'log_normal': Choice(log_normal, {'mean': (-1.2, ANY), 'deviation': (1.2, POSITIVE)}),
}
