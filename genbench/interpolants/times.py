"""Samplers of training times: (schedule, one key per image) → times (batch,).

With `by_weight`, the expected loss is the same as for even times: times that are drawn more often get a lower weight.

A time depends only on its image's own key, and for `low_discrepancy` also on the image's place in the batch. The number
of devices therefore does not matter. A family may add samplers to its own copy of `SAMPLERS`.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.interpolants.choices import Choice
from genbench.interpolants.schedules import Schedule
from genbench.ranges import ANY, COUNT, POSITIVE, Range

Array = jax.Array
STEEPEST = 2 / (math.pi - 2)  # the largest scale of `mode` for which its f is monotone


def uniform(schedule: Schedule, keys: Array) -> Array:
    """Even along the schedule's way to noise, in t or along its curve. Times below t_min are moved to t_min."""
    return _on_the_way(schedule, rng.uniform(keys, 'time'))


def low_discrepancy(schedule: Schedule, keys: Array) -> Array:
    """Even over the trained times, which are split into as many equal parts as the batch has images, one time in each.

    Kingma et al. 2021, appendix I.1, draw one offset for all images. Here each image has its own, from its own key.
    With gradient accumulation, there are as many parts as the micro-batch has images.
    """
    first = schedule.t_min / schedule.t_max if schedule.curve is None else 0.0
    share = (jnp.arange(len(keys)) + rng.uniform(keys, 'time')) / len(keys)
    return schedule.time(first + (1 - first) * share)


def over_steps(schedule: Schedule, keys: Array, *, count: int) -> Array:
    """One of the times of `count` steps, all equally likely (Ho et al. 2020, algorithm 1)."""
    return schedule.step(rng.integers(keys, 'time', 1, count + 1), count)


def logit_normal(schedule: Schedule, keys: Array, *, mean: float, deviation: float) -> Array:
    """The fraction s of the way to noise has a normal log s / (1 − s) (Esser et al. 2024, section 3.1)."""
    return _on_the_way(schedule, jax.nn.sigmoid(mean + deviation * rng.normal(keys, 'time')))


def log_normal(schedule: Schedule, keys: Array, *, mean: float, deviation: float) -> Array:
    """The noise level σ / α has a normal logarithm (Karras et al. 2022, table 1), within the schedule's levels."""
    level = jnp.exp(mean + deviation * rng.normal(keys, 'time'))
    return jnp.clip(schedule.time_at(level), schedule.t_min, schedule.t_max)


def mode(schedule: Schedule, keys: Array, *, scale: float) -> Array:
    """The fraction of the way to noise is f(u) = 1 − u − s (cos²(π u / 2) − 1 + u) of an even u, with s = `scale`
    (Esser et al. 2024, equation 20). Its density is symmetric; its middle is a mode for s > 0 and a valley for s < 0.
    """
    u = rng.uniform(keys, 'time')
    return _on_the_way(schedule, 1 - u - scale * (jnp.square(jnp.cos(jnp.pi * u / 2)) - 1 + u))


def u_shaped(schedule: Schedule, keys: Array, *, a: float) -> Array:
    """The fraction s of the way to noise has the density ∝ e^(a s) + e^(a (1 − s)), which is highest at both ends (Lee
    et al. 2024, section 4.1)."""
    place = jnp.arcsinh((2 * rng.uniform(keys, 'time') - 1) * jnp.sinh(a / 2)) / a
    return _on_the_way(schedule, 0.5 + place)


def _on_the_way(schedule: Schedule, share: Array) -> Array:
    return jnp.maximum(schedule.time(share), schedule.t_min)


@dataclasses.dataclass(frozen=True)
class Cells:
    """A density of times that is constant within each of the equal cells between the ends of the trained times.

    Attributes:
      low, high: the ends.
      density: the density in each cell, relative to even times, with mean one.
    """

    low: float
    high: float
    density: np.ndarray

    def draw(self, keys: Array) -> Array:
        """Times from one key per image, (batch,), by inverting the distribution function."""
        count = len(self.density)
        ends = np.cumsum(self.density) / count
        share = rng.uniform(keys, 'time')
        cell = jnp.clip(jnp.searchsorted(jnp.asarray(ends, jnp.float32), share), 0, count - 1)
        begin = jnp.asarray(ends - self.density / count, jnp.float32)[cell]
        inside = jnp.clip((share - begin) * count / jnp.asarray(self.density, jnp.float32)[cell], 0, 1)
        return self.low + (self.high - self.low) * (cell + inside) / count

    def at(self, t: Array) -> Array:
        """The density at times (batch,), relative to even times."""
        count = len(self.density)
        cell = jnp.floor((t - self.low) / (self.high - self.low) * count).astype(jnp.int32)
        return jnp.asarray(self.density, jnp.float32)[jnp.clip(cell, 0, count - 1)]


def by_weight(schedule: Schedule, weight: Callable[[Array], Array], *, power: float, count: int = 1000) -> Cells:
    """A density in proportion to a power of the loss's weight, (times) → factors, at the middle of each cell."""
    low, high = schedule.t_min, schedule.t_max
    with jax.ensure_compile_time_eval():  # even if a caller is being traced
        middles = low + (high - low) * (jnp.arange(count) + 0.5) / count
        heights = np.asarray(weight(middles), np.float64) ** power
    return Cells(low, high, heights / heights.mean())


SAMPLERS: dict[str, Choice] = {
    'uniform': Choice(uniform),
    'low_discrepancy': Choice(low_discrepancy, offers=('even times',)),
    'by_weight': Choice(by_weight, {'power': (1.0, Range(0, 1))}, needs=('times alone',), offers=('even times',)),
    'steps': Choice(over_steps, {'count': (1000, COUNT)}),
    'logit_normal': Choice(logit_normal, {'mean': (0.0, ANY), 'deviation': (1.0, POSITIVE)}),
    'mode': Choice(mode, {'scale': (1.29, Range(-1, STEEPEST))}),
    'u_shaped': Choice(u_shaped, {'a': (4.0, POSITIVE)}),
    'log_normal': Choice(log_normal, {'mean': (-1.2, ANY), 'deviation': (1.2, POSITIVE)}),
}
