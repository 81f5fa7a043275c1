"""Solver steps from a time t to an earlier time s. Each runs on any network whose mathematics it fits."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genbench.errors import UserError
from genbench.interpolants.predictions import Denoiser, Prediction
from genbench.interpolants.schedules import Schedule, expand

Array = jax.Array
FlowMap = Callable[[Array, Array, Array], Array]  # (x_t, t (batch,), s (batch,)) → x_s


class Step(NamedTuple):
    """The inputs of a solver step: scalars t > s, the state x_t, a network, normal noise on demand, and options.

    Attributes:
      denoise: the denoiser, for a network of the kind 'denoiser' or 'endpoint'.
      noise: standard normal numbers shaped like x_t, multiplied by the temperature; with a number, others.
      num_steps: the number of steps in the whole run.
      options: the record that the solver declares.
      flow_map: the flow map, for a network of the kind 'map'.
      ahead: the number of steps that are left, this one included.
    """

    schedule: Schedule
    denoise: Denoiser
    x_t: Array
    t: Array
    s: Array
    noise: Callable[..., Array]
    num_steps: Array
    options: Any
    flow_map: FlowMap | None = None
    ahead: Array | int = 1

    def predict(self, x: Array, t: Array) -> Prediction:
        return self.denoise(x, jnp.full(x.shape[0], t))

    def map(self, x: Array, t: Array, s: Array) -> Array:
        """x_s on the trajectory through x at time t."""
        assert self.flow_map is not None, 'a solver that needs a map was given none'
        return self.flow_map(x, jnp.full(x.shape[0], t), jnp.full(x.shape[0], s))


def ancestral(step: Step) -> Array:
    """x_s ~ N(mean of q(x_s | x_t, x̂), v), without noise on the last step (Ho et al. 2020, algorithm 2).

    v is the variance of q(x_s | x_t, x̂) for 'small', or of q(x_t | x_s) for 'large'. These are DDPM's β̃ and β for the
    steps taken. For 'learned', the network interpolates between the two (Nichol & Dhariwal 2021, equation 15).
    """
    predicted = step.predict(step.x_t, step.t)
    mean, std = posterior(step.schedule, predicted.x, step.x_t, step.t, step.s)
    if step.options.variance != 'small':
        large = jnp.sqrt(forward_variance(step.schedule, step.t, step.s))
        if step.options.variance == 'learned':
            if predicted.variance is None:
                raise UserError('variance=learned needs a network that was trained with family.learned_variance.')
            large = std * (large / jnp.where(std > 0, std, large)) ** predicted.variance
        std = jnp.where(step.schedule.sigma(step.s) > 0, large, 0)
    return mean + std * step.noise()


def posterior(schedule: Schedule, x: Array, x_t: Array, t: Array, s: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of q(x_s | x_t, x) for s < t (Kingma et al. 2021, appendix A)."""
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    ratio = schedule.alpha(t) / alpha_s
    variance_t, variance_ts = jnp.square(schedule.sigma(t)), forward_variance(schedule, t, s)
    mean = (ratio * jnp.square(sigma_s) * x_t + alpha_s * variance_ts * x) / variance_t
    return mean, sigma_s * jnp.sqrt(variance_ts / variance_t)


def forward_variance(schedule: Schedule, t: Array, s: Array) -> Array:
    """The variance of q(x_t | x_s), σ_t² − (α_t σ_s / α_s)². If α² + σ² = 1, this is β = 1 − α_t² / α_s²."""
    kept = schedule.alpha(t) / schedule.alpha(s) * schedule.sigma(s)
    return jnp.maximum(jnp.square(schedule.sigma(t)) - jnp.square(kept), 0)


def euler(step: Step) -> Array:
    """x_s = α_s x̂ + σ_s ε̂ (J. Song et al. 2021, DDIM, equation 12 with η = 0). For every schedule, this is Euler's rule
    along the straightened path."""
    prediction = step.predict(step.x_t, step.t)
    return step.schedule.alpha(step.s) * prediction.x + step.schedule.sigma(step.s) * prediction.noise


def ddim(step: Step) -> Array:
    """x_s = α_s x̂ + √(σ_s² − v²) ε̂ + v z, where v is η times the standard deviation of an ancestral step (J. Song et
    al. 2021, equations 12 and 16)."""
    if not step.options.eta and step.options.renoise == 'guided':
        return euler(step)
    schedule, s = step.schedule, step.s
    prediction = step.predict(step.x_t, step.t)
    _, std = posterior(schedule, prediction.x, step.x_t, step.t, s)
    v = step.options.eta * std
    kept = jnp.sqrt(jnp.maximum(jnp.square(schedule.sigma(s)) - jnp.square(v), 0))
    return schedule.alpha(s) * prediction.x + kept * prediction.noise + v * step.noise()


def heun(step: Step) -> Array:
    """The trapezoidal rule along the straightened path, with Euler's rule for the last step to σ = 0.

    This is algorithm 1 of Karras et al. 2022, which allows any s(t) and σ(t). Time is b of `Schedule.straightened`, so
    s(b) = 1 − κ b and σ(b) = b / (1 − κ b). With churn it is their algorithm 2.
    """
    schedule, t, s = step.schedule, churned_time(step), step.s
    x_t = _churned(step, t) if step.options.churn else step.x_t
    first = slope(schedule, step.predict(x_t, t))
    guess = advance(schedule, x_t, first, t, s)

    def corrected():
        second = slope(schedule, step.predict(guess, s))
        return advance(schedule, x_t, (first + second) / 2, t, s)

    return jax.lax.cond(schedule.sigma(s) > 0, corrected, lambda: guess)


def churned_time(step: Step) -> Array:
    """The time at which a step of `heun` begins. Its noise level is raised by γ, but not beyond that at t_max."""
    schedule, t, options = step.schedule, step.t, step.options
    if not options.churn:
        return t
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    raised = jnp.minimum(options.churn / step.num_steps, math.sqrt(2) - 1)
    within = (sigma >= options.s_tmin * alpha) & ((sigma <= options.s_tmax * alpha) | math.isinf(options.s_tmax))
    _, b = schedule.straightened(t)
    later = schedule.time_of((1 + raised) * b / (1 + schedule.kappa * raised * b))  # where σ / α is (1 + γ) times b's
    return jnp.where(within, jnp.maximum(later, t), t)


def heun_times(step: Step) -> tuple[Array, Array]:
    """The times at which `heun` evaluates its network."""
    return churned_time(step), step.s


def _churned(step: Step, later: Array) -> Array:
    """x_t with noise added up to the time `later`."""
    alpha = jnp.maximum(step.schedule.alpha(step.t), jnp.finfo(step.x_t.dtype).tiny)  # zero at t_max of some paths
    kept = jnp.where(later > step.t, step.schedule.alpha(later) / alpha, 1.0)
    variance = jnp.square(step.schedule.sigma(later)) - jnp.square(kept * step.schedule.sigma(step.t))
    return kept * step.x_t + step.options.s_noise * jnp.sqrt(jnp.maximum(variance, 0)) * step.noise()


def flow_map(step: Step) -> Array:
    """x_s directly from the network, for a step of any length.

    With γ, the network jumps to where the noise level is √(1 − γ²) times that of s, and fresh noise makes up the rest.
    """
    gamma, s = step.options.gamma, step.s
    if not gamma:
        return step.map(step.x_t, step.t, s)
    schedule = step.schedule
    level = math.sqrt(1 - gamma**2) * schedule.sigma(s) / schedule.alpha(s)
    earlier = jnp.where(level > 0, schedule.time_at(level), 0)
    kept = schedule.alpha(s) / schedule.alpha(earlier) * step.map(step.x_t, step.t, earlier)
    return kept + gamma * schedule.sigma(s) * step.noise()


def slope(schedule: Schedule, prediction: Prediction) -> Array:
    """The derivative ε̂ − κ x̂ of the straightened state x_t / c with respect to b = σ / c (`Schedule.straightened`)."""
    return prediction.noise - schedule.kappa * prediction.x


def advance(schedule: Schedule, x_t: Array, slope: Array, t: Array, s: Array) -> Array:
    """x_s on the tangent of the straightened path at x_t (batch, …); times are scalars or (batch,).

    The state is linear in b where the predicted image and noise are constant. The step to σ = 0 therefore removes known
    noise completely. A step in t would not, for near the data σ grows like √t on most schedules.
    """
    (c_t, b_t), (c_s, b_s) = schedule.straightened(t), schedule.straightened(s)
    return expand(c_s / c_t, x_t) * x_t + expand(c_s * (b_s - b_t), x_t) * slope


def multistep_consistency(step: Step) -> Array:
    """Jump to the clean image, then add fresh noise of level s (Y. Song et al. 2023, algorithm 1)."""
    clean = step.predict(step.x_t, step.t).x
    return step.schedule.alpha(step.s) * clean + step.schedule.sigma(step.s) * step.noise()


def inverted(schedule: Schedule, denoise: Denoiser, x: Array, count: Array, taken: Array, spacing: str) -> Array:
    """The state from which the last `taken` of `count` deterministic steps lead back to the images x (batch, …).

    These are the steps of `euler` in the other direction, each with the slope at its beginning (J. Song et al. 2021,
    DDIM, section 4.3; P. Dhariwal, A. Nichol 2021, appendix F). Networks are not trained before t_min, so that the
    first one begins there, at α x.
    """

    def body(ahead: Array, x_t: Array) -> Array:
        t, s = inverted_times(schedule, ahead, count, spacing)
        predicted = denoise(x_t, jnp.full(len(x_t), t))
        return advance(schedule, x_t, slope(schedule, predicted), t, s)

    return jax.lax.fori_loop(0, taken, body, schedule.alpha(jnp.asarray(schedule.t_min)) * x)


def inverted_times(schedule: Schedule, ahead: Array, count: Array, spacing: str) -> tuple[Array, Array]:
    """The times between which `inverted` goes where `ahead` of `count` steps have been undone."""
    t, s = (jnp.maximum(schedule.step(done, count, spacing), schedule.t_min) for done in (ahead, ahead + 1))
    return t, s
