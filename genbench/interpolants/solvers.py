"""Solvers that carry noise to data, one step a function; all run on any denoiser whose mathematics they fit.

A step goes from time t to an earlier time s. The number of steps is a traced integer, so one compiled program serves
every step count. Noise is drawn for each image from its own key: samples do not depend on the batch they are in.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.errors import UserError, did_you_mean
from genbench.interpolants.predictions import Denoiser, velocity
from genbench.interpolants.schedules import Schedule

Array = jax.Array


class Step(NamedTuple):
    """What a solver step may use: scalars t > s, the state x_t, a denoiser and standard normal noise on demand."""

    schedule: Schedule
    denoise: Denoiser
    x_t: Array
    t: Array
    s: Array
    noise: Callable[[], Array]

    def predict(self, x: Array, t: Array):
        return self.denoise(x, jnp.full(x.shape[0], t))


def ancestral(step: Step) -> Array:
    """x_s ~ q(x_s | x_t, x̂) (Ho et al. 2020, equations 6–7; for any schedule Kingma et al. 2021, appendix A)."""
    mean, std = posterior(step.schedule, step.predict(step.x_t, step.t).x, step.x_t, step.t, step.s)
    return mean + std * step.noise()


def posterior(schedule: Schedule, x: Array, x_t: Array, t: Array, s: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of q(x_s | x_t, x) for s < t (Kingma et al. 2021, appendix A)."""
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    ratio = schedule.alpha(t) / alpha_s
    variance_t = jnp.square(schedule.sigma(t))
    variance_ts = jnp.maximum(variance_t - jnp.square(ratio * sigma_s), 0)
    mean = (ratio * jnp.square(sigma_s) * x_t + alpha_s * variance_ts * x) / variance_t
    return mean, sigma_s * jnp.sqrt(variance_ts / variance_t)


def ddim(step: Step) -> Array:
    """x_s = α_s x̂ + σ_s ε̂ (J. Song et al. 2021, DDIM, equation 12 with η = 0)."""
    prediction = step.predict(step.x_t, step.t)
    return step.schedule.alpha(step.s) * prediction.x + step.schedule.sigma(step.s) * prediction.noise


def _slope(step: Step, x: Array, t: Array) -> Array:
    return velocity(step.schedule, step.predict(x, t), jnp.full(x.shape[0], t))


def euler(step: Step) -> Array:
    """x_s = x_t + (s − t) dx/dt."""
    return step.x_t + (step.s - step.t) * _slope(step, step.x_t, step.t)


def heun(step: Step) -> Array:
    """The trapezoidal rule, and Euler on the last step to σ = 0 (Karras et al. 2022, algorithm 1)."""
    first = _slope(step, step.x_t, step.t)
    guess = step.x_t + (step.s - step.t) * first
    safe = jnp.maximum(step.s, step.schedule.t_min)  # the last step ends where the slope of some paths is undefined

    def corrected():
        return step.x_t + (step.s - step.t) * (first + _slope(step, guess, safe)) / 2

    return jax.lax.cond(step.schedule.sigma(step.s) > 0, corrected, lambda: guess)


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


SOLVERS = {
    'ancestral': Solver(ancestral, lambda n: n),
    'ddim': Solver(ddim, lambda n: n),
    'euler': Solver(euler, lambda n: n),
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
    reason = {
        'denoiser': 'it jumps to the end of the trajectory in one evaluation, and this network predicts '
        'the mean of the clean images instead, which is no sample',
        'endpoint': 'it follows the slope of a trajectory, and this network gives only its end point',
    }[kind]
    raise UserError(f'The sampler {name!r} does not fit here: {reason}. Use {" or ".join(names(kind))}.')


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
) -> Path:
    """Carry `start`, x at t_max, to clean images in `num_steps` steps.

    Args:
      keys: one key an image, (batch,).
      num_steps: may be traced.
    """
    n = jnp.asarray(num_steps)

    def body(index, x):
        return solver.step(_step(schedule, denoise, x, keys, index, n))

    return Path(jax.lax.fori_loop(0, n, body, start), solver.evaluations(n))


def trace(
    solver: Solver,
    schedule: Schedule,
    denoise: Denoiser,
    start: Array,
    keys: Array,
    num_steps: int,
    first: Array | int = 0,
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

        moved = solver.step(_step(schedule, observed, x, keys, index, jnp.asarray(num_steps)))
        waiting = index < first
        x = jnp.where(waiting, x, moved)
        return x, (x, jnp.where(waiting, start, seen[0]))

    _, (states, predictions) = jax.lax.scan(body, start, jnp.arange(num_steps))
    return Trace(jnp.concatenate([start[None], states]), predictions)


def _step(schedule: Schedule, denoise: Denoiser, x: Array, keys: Array, index: Array, n: Array) -> Step:
    """The step number `index` of n."""

    def noise():
        return rng.normal(rng.numbered(rng.named(keys, 'steps'), index), 'noise', x.shape[1:])

    return Step(schedule, denoise, x, schedule.time((n - index) / n), schedule.time((n - index - 1) / n), noise)
