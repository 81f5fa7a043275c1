"""Multistep solvers of the probability-flow ODE and of its SDE: one rule, whose weights tell the solvers apart.

From t to s, a solver takes the predicted image (or noise) for a polynomial through this step's prediction y_0 and the
previous ones y_k. All that the step needs of it is its mean, y_0 + Σ c_k (y_k − y_0). DPM-Solver++ and UniPC have it
over λ = log α / σ, DEIS over t. Places on this axis are counted from t in units of the step: t lies at 0 and s at 1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genbench.interpolants.schedules import Schedule
from genbench.interpolants.spacings import LOUDEST
from genbench.interpolants.steps import Step, posterior

Array = jax.Array
Axis = Callable[[Array], Array]
Number = Array | float
Rule = Callable[[Array, Sequence[Number]], list[Number]]  # (h, places of y_1, y_2, …) → c_1, c_2, …


def _gauss(like: Array) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and weights of Gauss's rule on [0, 1], in the precision of `like`."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    return ((1 + nodes) / 2).astype(like.dtype), (weights / 2).astype(like.dtype)


class History(NamedTuple):
    """Predictions of previous steps (k, batch, …) and their times (k,), the latest first. A negative time means that
    there was none."""

    y: Array
    t: Array


def empty(count: int, start: Array) -> History:
    return History(jnp.zeros((count, *start.shape), start.dtype), -jnp.ones(count, start.dtype))


def dpmpp_2m(step: Step, history: History) -> tuple[Array, History]:
    """DPM-Solver++(2M) (Lu et al. 2022, DPM-Solver++, algorithm 2)."""
    x = step.predict(step.x_t, step.t).x
    mean, history = _mean(step, history, x, (_alone, _middle))
    return along(step.schedule, step.x_t, mean, step.t, step.s), history


def dpmpp_3m(step: Step, history: History) -> tuple[Array, History]:
    """DPM-Solver++(3M): the quadratic through three predictions, integrated exactly.

    With `curvature=half` its second derivative counts half, as in the official code. The solver is then of second
    order.
    """
    x = step.predict(step.x_t, step.t).x
    third = exact if step.options.curvature == 'full' else _half_as_curved
    mean, history = _mean(step, history, x, (_alone, _middle, third))
    return along(step.schedule, step.x_t, mean, step.t, step.s), history


def dpmpp_2m_sde(step: Step, history: History) -> tuple[Array, History]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, DPM-Solver++, section 5). A step of first order is one of `ancestral`."""
    x = step.predict(step.x_t, step.t).x
    mean, history = _mean(step, history, x, (_alone, _middle))
    moved, std = posterior(step.schedule, mean, step.x_t, step.t, step.s)
    return moved + std * step.noise(), history


def unipc(step: Step, history: History) -> tuple[Array, History]:
    """UniPC of the predicted image (Zhao et al. 2023, algorithms 1 and 2), with a predictor of the order p.

    The prediction at t first corrects x_t, which the previous step guessed without it. The corrector therefore costs no
    evaluation, and raises the order to p + 1.
    """
    x = step.predict(step.x_t, step.t).x
    size = _sizes[step.options.variant]
    predictor = (_alone, lambda h, places: [size(h) * c for c in _middle(h, places)], exact)[: step.options.order]
    corrector = (lambda h, places: [size(h) / 2], _and_after, _and_after)[: step.options.order]
    x_t = step.x_t + _correction(step, history, x, predictor, corrector)
    mean, history = _mean(step, history, x, predictor)
    return along(step.schedule, x_t, mean, step.t, step.s), history


def deis(step: Step, history: History) -> tuple[Array, History]:
    """tAB-DEIS: the noise is a polynomial in t of the degree r (Zhang & Chen 2023, equation 15), over which σ / α is
    integrated. With `axis=log_rho` it is a polynomial in log σ / α."""
    schedule, t, s = step.schedule, step.t, step.s
    predicted = step.predict(step.x_t, t)

    def mean_in_t(h, places):
        alpha, sigma, alpha_dot, sigma_dot = schedule.coefficients(t + (s - t) * _gauss(t)[0])
        return _weigh((sigma_dot * alpha - alpha_dot * sigma) / jnp.square(alpha), places)

    def mean_in_log_rho(h, places):
        return _weigh(jnp.exp(-h * _gauss(h)[0]), places)

    rule, axis = (mean_in_t, lambda time: time) if step.options.axis == 't' else (mean_in_log_rho, None)
    mean, history = _mean(step, history, predicted.noise, (_alone, *[rule] * step.options.degree), axis)
    kept = schedule.alpha(s) / _positive(schedule.alpha(t))
    start = schedule.alpha(s) * predicted.x + schedule.sigma(s) * predicted.noise
    return start + (schedule.sigma(s) - kept * schedule.sigma(t)) * (mean - predicted.noise), history


def along(schedule: Schedule, x_t: Array, image: Array, t: Array, s: Array) -> Array:
    """x_s if the predicted image has this mean from t to s (DPM-Solver++, equation 8)."""
    kept = schedule.sigma(s) / schedule.sigma(t)
    return kept * x_t + (schedule.alpha(s) - kept * schedule.alpha(t)) * image


def half_log_snr(schedule: Schedule, t: Array) -> Array:
    """λ = log α / σ, at least −log LOUDEST, and finite at σ = 0."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return jnp.log(jnp.maximum(alpha, sigma / LOUDEST)) - jnp.log(_positive(sigma))


def exact(h: Array, places: Sequence[Number]) -> list[Number]:
    """Weights for the exact integral of the polynomial over λ, where images count in proportion to e^λ."""
    return _weigh(jnp.exp(-h * (1 - _gauss(h)[0])), places)


def _alone(h: Array, places: Sequence[Number]) -> list[Number]:
    return []


def _middle(h: Array, places: Sequence[Number]) -> list[Number]:
    """The line's value half-way, the paper's 1 / 2r."""
    return [0.5 / places[0]]


def _half_as_curved(h: Array, places: Sequence[Number]) -> list[Number]:
    """`exact` for the quadratic D_1 u + D_2 u² / 2 in place of D_1 u + D_2 u²."""
    (nodes, lengths), (p, q) = _gauss(h), places
    kernel = lengths * jnp.exp(-h * (1 - nodes))
    u, square = (jnp.sum(kernel * nodes**power) / jnp.sum(kernel) / power for power in (1, 2))
    return [(square - q * u) / (p * (p - q)), (square - p * u) / (q * (q - p))]


def _and_after(h: Array, places: Sequence[Number]) -> list[Number]:
    """`exact` with the prediction at s, which comes first."""
    return exact(h, [1.0, *places])


# B(h) in multiples of the first-order term
_sizes = {'bh2': lambda h: 1.0, 'bh1': lambda h: h / -jnp.expm1(-h)}


def _weigh(kernel: Array, places: Sequence[Number]) -> list[Number]:
    """The means of Lagrange's polynomials for these places, beside the place 0, with a kernel at Gauss's nodes."""
    nodes, lengths = _gauss(kernel)
    kernel, found = kernel * lengths, list[Number]()
    for place in places:
        others = [other for other in places if other is not place]
        shape = nodes / place
        for other in others:
            shape = shape * (nodes - other) / (place - other)
        found.append(jnp.sum(kernel * shape) / jnp.sum(kernel))
    return found


def _mean(
    step: Step, history: History, newest: Array, rules: Sequence[Rule], axis: Axis | None = None
) -> tuple[Array, History]:
    """The mean of the predictions over the step, and the history with the newest one.

    Args:
      rules: of the orders 1, 2, … The order of a step is at most one more than the number of previous predictions, and
        at most the number of steps that are left.
    """
    again = history.t[0] == step.t  # a repeated step replaces its earlier attempt
    earlier = History(*(jnp.where(again, jnp.roll(part, -1, 0), part) for part in history))
    earlier = earlier._replace(t=jnp.where(again, earlier.t.at[-1].set(-1), earlier.t))
    weights = _weights(step.schedule, step.t, step.s, earlier.t, step.ahead, rules, axis)
    pushed = [jnp.concatenate([one[None].astype(rest.dtype), rest[:-1]])
              for one, rest in ((newest, earlier.y), (step.t, earlier.t))]  # fmt: skip
    return newest + _tilt(weights, newest, list(earlier.y)), History(*pushed)


def _correction(
    step: Step, history: History, x: Array, predictor: Sequence[Rule], corrector: Sequence[Rule]
) -> Array:  # fmt: skip
    """What x_t would have been more if the previous step had known the prediction at its end."""
    schedule, before, first = step.schedule, jnp.abs(history.t[0]), history.y[0]
    guess, better = (
        _weights(schedule, before, step.t, history.t[1:], step.ahead + 1, rules) for rules in (predictor, corrector)
    )
    known = list(history.y[1:])
    tilt = _tilt(better, first, [x, *known]) - _tilt(guess, first, known)
    gain = schedule.alpha(step.t) - schedule.sigma(step.t) / schedule.sigma(before) * schedule.alpha(before)
    return jnp.where(history.t[0] > step.t, gain * tilt, 0)


def _tilt(weights: Sequence[Array], y: Array, others: Sequence[Array]) -> Array:
    return sum((c * (other - y) for c, other in zip(weights, others, strict=False)), jnp.zeros_like(y))


def _weights(
    schedule: Schedule,
    t: Array,
    s: Array,
    times: Array,
    ahead: Array | int,
    rules: Sequence[Rule],
    axis: Axis | None = None,
) -> list[Array]:
    """c_k of the predictions at `times` (k,), with the rule of the order that a step from t to s has."""
    axis = axis or (lambda time: half_log_snr(schedule, time))
    start, length = axis(t), axis(s) - axis(t)
    known = (times > t) & (schedule.alpha(jnp.abs(times)) > 0)  # where α = 0, λ is infinite
    places = [jnp.where(known[k], (axis(jnp.abs(times[k])) - start) / length, -1.0 - k) for k in range(len(times))]
    order = jnp.minimum(1 + jnp.cumprod(known)[: len(rules) - 1].sum(), ahead)
    h = half_log_snr(schedule, s) - half_log_snr(schedule, t)
    found = [rule(h, places[:number]) for number, rule in enumerate(rules)]
    return [
        sum((jnp.where(order == number + 1, c[k], 0) for number, c in enumerate(found) if k < len(c)), jnp.zeros(()))
        for k in range(max(map(len, found)))
    ]


def _positive(values: Array) -> Array:
    return jnp.maximum(values, jnp.finfo(values.dtype).tiny)
