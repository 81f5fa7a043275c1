"""Solvers that carry noise to data, one step a function; all run on any denoiser whose mathematics they fit.

A step goes from time t to an earlier time s. The number of steps is a traced integer, so one compiled program serves
every step count. Noise is drawn for each image from its own key: samples do not depend on the batch they are in.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.errors import UserError, did_you_mean
from genbench.interpolants.predictions import Denoiser, Prediction
from genbench.interpolants.schedules import SPACINGS, Schedule, expand

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen of a solver beside its number of steps; each solver declares which it takes.

    Attributes:
      variance: of an ancestral step, 'small' (β̃) or 'large' (β).
      spacing: of the steps' times, see `schedules.SPACINGS`.
    """

    variance: str = dataclasses.field(default='small', metadata={'choices': ('small', 'large')})
    spacing: str = dataclasses.field(default='uniform', metadata={'choices': tuple(SPACINGS)})

    @property
    def changed(self) -> dict[str, Any]:
        """The options that are not at their default, by name."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if getattr(self, field.name) != field.default}


class Step(NamedTuple):
    """What a solver step may use: scalars t > s, the state x_t, a denoiser and standard normal noise on demand."""

    schedule: Schedule
    denoise: Denoiser
    x_t: Array
    t: Array
    s: Array
    noise: Callable[[], Array]
    options: Options = Options()

    def predict(self, x: Array, t: Array):
        return self.denoise(x, jnp.full(x.shape[0], t))


def ancestral(step: Step) -> Array:
    """x_s ~ N(mean of q(x_s | x_t, x̂), v), without noise on the last step (Ho et al. 2020, algorithm 2).

    v is the variance of q(x_s | x_t, x̂), 'small', or of q(x_t | x_s), 'large': β̃ and β of DDPM for the steps taken.
    """
    mean, std = posterior(step.schedule, step.predict(step.x_t, step.t).x, step.x_t, step.t, step.s)
    if step.options.variance == 'large':
        std = jnp.where(step.schedule.sigma(step.s) > 0, jnp.sqrt(_forward_variance(step.schedule, step.t, step.s)), 0)
    return mean + std * step.noise()


def posterior(schedule: Schedule, x: Array, x_t: Array, t: Array, s: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of q(x_s | x_t, x) for s < t (Kingma et al. 2021, appendix A)."""
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    ratio = schedule.alpha(t) / alpha_s
    variance_t, variance_ts = jnp.square(schedule.sigma(t)), _forward_variance(schedule, t, s)
    mean = (ratio * jnp.square(sigma_s) * x_t + alpha_s * variance_ts * x) / variance_t
    return mean, sigma_s * jnp.sqrt(variance_ts / variance_t)


def _forward_variance(schedule: Schedule, t: Array, s: Array) -> Array:
    """Of q(x_t | x_s): σ_t² − (α_t σ_s / α_s)²; where α² + σ² = 1, β = 1 − α_t² / α_s²."""
    kept = schedule.alpha(t) / schedule.alpha(s) * schedule.sigma(s)
    return jnp.maximum(jnp.square(schedule.sigma(t)) - jnp.square(kept), 0)


def euler(step: Step) -> Array:
    """x_s = α_s x̂ + σ_s ε̂ (J. Song et al. 2021, DDIM, equation 12 with η = 0): Euler's rule along a straightened path,
    whatever its schedule."""
    prediction = step.predict(step.x_t, step.t)
    return step.schedule.alpha(step.s) * prediction.x + step.schedule.sigma(step.s) * prediction.noise


def heun(step: Step) -> Array:
    """The trapezoidal rule along the straightened path, and Euler's on the last step to σ = 0.

    It is algorithm 1 of Karras et al. 2022, which takes any s(t) and σ(t), with b of `Schedule.straightened` for its
    time: s(b) = 1 − κ b and σ(b) = b / (1 − κ b).
    """
    schedule, t, s = step.schedule, step.t, step.s
    first = slope(schedule, step.predict(step.x_t, t))
    guess = advance(schedule, step.x_t, first, t, s)

    def corrected():
        second = slope(schedule, step.predict(guess, s))
        return advance(schedule, step.x_t, (first + second) / 2, t, s)

    return jax.lax.cond(schedule.sigma(s) > 0, corrected, lambda: guess)


def slope(schedule: Schedule, prediction: Prediction) -> Array:
    """Derivative of the straightened state x_t / c by b = σ / c: ε̂ − κ x̂ (see `Schedule.straightened`)."""
    return prediction.noise - schedule.kappa * prediction.x


def advance(schedule: Schedule, x_t: Array, slope: Array, t: Array, s: Array) -> Array:
    """x_s on the tangent of the straightened path at x_t (batch, …); times are scalars or (batch,).

    The state is straight in b where the predicted image and noise are constant. Noise that is known therefore vanishes
    on the step to σ = 0, as it does not in t: near the data σ grows with √t on most schedules.
    """
    (c_t, b_t), (c_s, b_s) = schedule.straightened(t), schedule.straightened(s)
    return expand(c_s / c_t, x_t) * x_t + expand(c_s * (b_s - b_t), x_t) * slope


def multistep_consistency(step: Step) -> Array:
    """Jump to the clean image, then add fresh noise of level s (Y. Song et al. 2023, algorithm 1)."""
    clean = step.predict(step.x_t, step.t).x
    return step.schedule.alpha(step.s) * clean + step.schedule.sigma(step.s) * step.noise()


@dataclasses.dataclass(frozen=True)
class Solver:
    """A step function and its price: evaluations for n steps."""

    step: Callable[[Step], Array]
    evaluations: Callable[[Array], Array]
    needs: str = 'denoiser'  # 'denoiser': predicts E[x | x_t]; 'endpoint': predicts the end of the trajectory
    options: tuple[str, ...] = ('spacing',)  # of `Options`, those it takes


SOLVERS = {
    'ancestral': Solver(ancestral, lambda n: n, options=('variance', 'spacing')),
    'ddim': Solver(euler, lambda n: n),  # what diffusion calls it
    'euler': Solver(euler, lambda n: n),  # what flow matching calls it
    'heun': Solver(heun, lambda n: 2 * n - 1),
    'multistep_consistency': Solver(multistep_consistency, lambda n: n, needs='endpoint'),
}


def names(kind: str) -> tuple[str, ...]:
    """Solvers for a network of the kind 'denoiser' or 'endpoint'."""
    return tuple(name for name, solver in SOLVERS.items() if solver.needs == kind)


def get(name: str, kind: str) -> Solver:
    """The solver called `name`, if it fits a network of this kind.

    Raises:
      UserError: the name is unknown, or the mathematics do not allow it; the message says why.
    """
    if name not in SOLVERS:
        raise UserError(f'No sampler is called {name!r}. {did_you_mean(name, SOLVERS)}')
    solver = SOLVERS[name]
    if solver.needs == kind:
        return solver
    reason = _REASONS.get((solver.needs, kind), f'it needs a network of the kind {solver.needs!r}, and this one is of '
                          f'the kind {kind!r}')  # fmt: skip
    fitting = f' Use {" or ".join(names(kind))}.' if names(kind) else ''
    raise UserError(f'The sampler {name!r} does not fit here: {reason}.{fitting}')


_REASONS = {  # (what a solver needs, what a network is) → why that does not go together
    ('endpoint', 'denoiser'): 'it jumps to the end of the trajectory in one evaluation, and this network predicts the '
    'mean of the clean images instead, which is no sample',
    ('denoiser', 'endpoint'): 'it follows the slope of a trajectory, and this network gives only its end point',
}


class Path(NamedTuple):
    """The end of a sampling run, and its cost."""

    x: Array
    evaluations: Array


class Trace(NamedTuple):
    """A sampling run as it went: x_t at its n + 1 times, (n + 1, batch, …), and the clean image that the network saw in
    it at the beginning of each step, (n, batch, …)."""

    states: Array
    predictions: Array


def initial_noise(schedule: Schedule, keys: Array, shape: tuple[int, ...]) -> Array:
    """x at t_max, one image a key: σ(t_max) ε."""
    noise = rng.normal(keys, 'start', shape)
    return schedule.sigma(jnp.asarray(schedule.t_max)) * noise


def solve(
    solver: Solver,
    schedule: Schedule,
    denoise: Denoiser,
    start: Array,
    keys: Array,
    num_steps: Array | int,
    options: Options = Options(),
) -> Path:
    """Carry `start`, x at t_max, to clean images in `num_steps` steps.

    Args:
      keys: one key an image, (batch,).
      num_steps: may be traced.
    """
    n = jnp.asarray(num_steps)

    def body(index, x):
        return solver.step(_step(schedule, denoise, x, keys, index, n, options))

    return Path(jax.lax.fori_loop(0, n, body, start), solver.evaluations(n))


def trace(
    solver: Solver,
    schedule: Schedule,
    denoise: Denoiser,
    start: Array,
    keys: Array,
    num_steps: int,
    first: Array | int = 0,
    options: Options = Options(),
) -> Trace:
    """As `solve`, with everything on the way.

    Args:
      num_steps: not traced.
      first: the step that begins at `start`, may be traced; states and predictions before it are `start` itself.
    """

    def body(x, index):
        seen = []

        def observed(x_t, t):
            prediction = denoise(x_t, t)
            seen.append(prediction.x)
            return prediction

        moved = solver.step(_step(schedule, observed, x, keys, index, jnp.asarray(num_steps), options))
        waiting = index < first
        x = jnp.where(waiting, x, moved)
        return x, (x, jnp.where(waiting, start, seen[0]))

    _, (states, predictions) = jax.lax.scan(body, start, jnp.arange(num_steps))
    return Trace(jnp.concatenate([start[None], states]), predictions)


def _step(
    schedule: Schedule, denoise: Denoiser, x: Array, keys: Array, index: Array, n: Array, options: Options
) -> Step:
    """The step number `index` of n."""

    def noise():
        return rng.normal(rng.numbered(rng.named(keys, 'steps'), index), 'noise', x.shape[1:])

    t, s = (schedule.step(ahead, n, options.spacing) for ahead in (n - index, n - index - 1))
    return Step(schedule, denoise, x, t, s, noise, options)
