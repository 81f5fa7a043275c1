"""Spacings: the times at which the steps of a solver begin, (schedule, steps that remain, steps in all) → time."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from genbench.errors import UserError

if TYPE_CHECKING:
    from genbench.interpolants.schedules import Schedule

Array = jax.Array
LOUDEST = 1000.0  # the highest σ / α of a first step if steps are spaced in noise levels, which some paths do not bound


def _uniform(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even steps along the schedule's own way: in t, or along its curve from t_max to the smallest noise, then zero."""
    if schedule.curve is None:
        return schedule.t_max * (ahead / jnp.asarray(count))
    return _then_zero(ahead, schedule.curve(_share(ahead, count)))


def _quadratic(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Steps from t_max to t_min with linearly changing lengths, then zero (J. Song et al. 2021, appendix D.2)."""
    return _squares(schedule, ahead, count, schedule.t_max)


def _ddim_quad(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """The same as in the official code of DDIM for CIFAR-10, which starts at step 801 of 1000 and treats it as noise.

    That code rounds 1 + 800 ((i − 1) / (N − 1))² down to whole steps; here t is real.
    """
    return _squares(schedule, ahead, count, 0.801)


def _linspace(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even steps in t from t_max to t_min, then zero (Nichol & Dhariwal 2021; Lin et al. 2024, table 2)."""
    return _then_zero(ahead, schedule.t_min + _share(ahead, count) * (schedule.t_max - schedule.t_min))


def _leading(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Every k-th time from t_min on, which leaves out the noisiest ones (official code of DDIM; Lin et al. 2024,
    table 2)."""
    return _then_zero(ahead, schedule.t_min + schedule.t_max * ((jnp.asarray(ahead) - 1) / jnp.asarray(count)))


def _power(power: float, schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even steps in t^(1/κ) from t_max to t_min, then zero (Zhang & Chen 2023, appendix H.3)."""
    low, high = schedule.t_min ** (1 / power), schedule.t_max ** (1 / power)
    t = jnp.power(low + _share(ahead, count) * (high - low), power)
    return _from_start(schedule, ahead, count, t)


def _shift(factor: float, schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even in t, then t ← s t / (1 + (s − 1) t) of the way to t_max (Esser et al. 2024, equation 23)."""
    share = jnp.asarray(ahead) / jnp.asarray(count)
    return schedule.t_max * (factor * share / (1 + (factor - 1) * share))


def _squares(schedule: 'Schedule', ahead: Array, count: Array | int, last: float) -> Array:
    first = schedule.t_min
    return _then_zero(ahead, first + (last - first) * jnp.square(_share(ahead, count)))


def _rho(rho: float, schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even steps in (σ / α)^(1/ρ) from t_max to t_min, then zero (Karras et al. 2022, equation 5)."""
    low, high = (jnp.power(level, 1 / rho) for level in _levels(schedule))
    level = jnp.power(low + _share(ahead, count) * (high - low), rho)
    return _from_start(schedule, ahead, count, schedule.time_at(level))


def _logsnr(schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """Even steps in log α² / σ² from t_max to t_min, then zero (Lu et al. 2022)."""
    low, high = (jnp.log(level) for level in _levels(schedule))
    return _from_start(schedule, ahead, count, schedule.time_at(jnp.exp(low + _share(ahead, count) * (high - low))))


def _levels(schedule: 'Schedule') -> tuple[Array, Array]:
    """σ / α at the last step and at the first, where it is at most LOUDEST."""
    ends = jnp.asarray([schedule.t_min, schedule.t_max])
    low, high = schedule.sigma(ends) / jnp.maximum(schedule.alpha(ends), schedule.sigma(ends) / LOUDEST)
    return low, high


def _chosen(times: tuple[float, ...], schedule: 'Schedule', ahead: Array, count: Array | int) -> Array:
    """These `count` times, then zero."""
    ahead = jnp.asarray(ahead)
    return _then_zero(ahead, jnp.asarray(times)[jnp.clip(len(times) - ahead, 0, len(times) - 1)])


def _share(ahead: Array, count: Array | int) -> Array:
    """1 if all `count` steps remain, 0 if one remains; a single step begins at 1."""
    count = jnp.asarray(count)
    return 1 - (count - ahead) / jnp.maximum(count - 1, 1)


def _then_zero(ahead: Array, t: Array) -> Array:
    return jnp.where(jnp.asarray(ahead) <= 0, 0.0, t)


def _from_start(schedule: 'Schedule', ahead: Array, count: Array | int, t: Array) -> Array:
    """t, but exactly t_max for the first step and zero after the last."""
    return _then_zero(ahead, jnp.where(jnp.asarray(ahead) >= count, schedule.t_max, t))


SPACINGS: dict[str, Callable[['Schedule', Array, Array | int], Array]] = {
    'uniform': _uniform,
    'quadratic': _quadratic,
    'ddim_quad': _ddim_quad,
    'logsnr': _logsnr,
    'linspace': _linspace,
    'leading': _leading,
}
# Spacings with a number, as in rho7. Outside these limits, powers exceed the range of 32-bit numbers.
NUMBERED: dict[str, tuple[Callable[..., Array], float, float]] = {
    'rho': (_rho, 0.1, 1e6),
    'power': (_power, 0.1, 100),
    'shift': (_shift, 1e-3, 1e3),
}


def read_spacing(text: str) -> str:
    """Read a spacing: one of `SPACINGS`, one of `NUMBERED` with its number, or the times of all steps, T/T/….

    Raises:
      ValueError: the text is not a spacing; the message says what it can be.
    """
    try:
        spaced(text)
    except ValueError:
        names = ', '.join(SPACINGS)
        raise ValueError(
            f'{names}, rho7 or another rhoN with N from 0.1 to 1e6, powerN with N from 0.1 to 100, shiftN with N from '
            '0.001 to 1000, or times that fall, such as 1/0.5/0.2'
        ) from None
    return text


def spaced(text: str) -> Callable[['Schedule', Array, Array | int], Array]:
    if text in SPACINGS:
        return SPACINGS[text]
    for name, (rule, low, high) in NUMBERED.items():
        if text.startswith(name):
            value = float(text.removeprefix(name))
            if not low <= value <= high:
                raise ValueError(text)
            return functools.partial(rule, value)
    return functools.partial(_chosen, times_of(text))


def times_of(spacing: str) -> tuple[float, ...]:
    """The times that a spacing lists as T/T/…, or a ValueError if it lists none."""
    times = tuple(float(time) for time in spacing.split('/'))
    if not all(1e6 > late > early > 0 for late, early in zip(times, (*times[1:], times[-1] / 2), strict=True)):
        raise ValueError(spacing)
    return times


def check_spacing(schedule: 'Schedule', spacing: str) -> int | None:
    """The number of steps that a spacing fixes, or None if it fixes none.

    Raises:
      UserError: this schedule does not allow this spacing.
    """
    early = {'ddim_quad': ('at 0.801', 'quadratic'), 'leading': ('before t_max', 'linspace')}
    if spacing in early and schedule.name != 'linear':
        begins, other = early[spacing]
        raise UserError(f'spacing={spacing} begins {begins}, where the schedule linear has reached noise, but '
                        f'{schedule.name} has not; use spacing={other}.')  # fmt: skip
    if spacing in SPACINGS or spacing.startswith(tuple(NUMBERED)):
        return None
    times = times_of(spacing)
    if not math.isclose(times[0], schedule.t_max, rel_tol=1e-6):
        raise UserError(f'spacing={spacing} begins at {times[0]:g}, but samples of the schedule '
                        f'{schedule.name} start from noise at {schedule.t_max:.8g}; write it first.')  # fmt: skip
    return len(times)
