"""Solvers of the reverse SDE besides `ancestral`. The last step, to σ = 0, gives the predicted image."""

import math

import jax
import jax.numpy as jnp

from genbench.interpolants.schedules import expand
from genbench.interpolants.steps import Step, forward_variance, posterior

Array = jax.Array


def euler_maruyama(step: Step) -> Array:
    """A step in t of dx = (α' x̂ + σ' ε̂ + ½ w ε̂ / σ) dt + √w dW (Y. Song et al. 2021, appendix D; Ma et al. 2024,
    SiT, equation 6).

    With `diffusion=forward`, w is g² = 2 σ σ' − 2 σ² α' / α of the forward SDE. With `diffusion=sigma` it is σ.
    """
    schedule, t, s = step.schedule, step.t, step.s
    predicted = step.predict(step.x_t, t)
    alpha, sigma, alpha_dot, sigma_dot = schedule.coefficients(t)
    rates = {'forward': 2 * sigma * (sigma_dot - sigma * alpha_dot / alpha), 'sigma': sigma}
    rate = rates[step.options.diffusion]
    drift = alpha_dot * predicted.x + (sigma_dot + rate / sigma / 2) * predicted.noise
    moved = step.x_t - (t - s) * drift + jnp.sqrt(rate * (t - s)) * step.noise()
    return jnp.where(schedule.sigma(s) > 0, moved, predicted.x)


def predictor_corrector(step: Step) -> Array:
    """Steps of Langevin dynamics at t, then a step to s (Y. Song et al. 2021, algorithms 2 to 5).

    As in the official code, the Langevin steps come first. The length of one follows from the norm of an image's own
    score and from √d, the norm of the noise in d dimensions, where the code takes means of both over the batch. With
    the norm of the image's own noise, long draws would also be scaled up, which widens the law of small images.
    """
    schedule, t, s = step.schedule, step.t, step.s
    x = step.x_t
    forward = forward_variance(schedule, t, s)
    kept = schedule.alpha(t) / schedule.alpha(s)

    def corrected(number, x):
        score, z = -step.predict(x, t).noise / schedule.sigma(t), step.noise(number + 1)
        size = math.sqrt(math.prod(x.shape[1:]))
        ratio = step.options.snr * size / jnp.maximum(_norm(score), jnp.finfo(x.dtype).tiny)
        length = expand(2 * jnp.square(kept * ratio), x)
        return x + length * score + jnp.sqrt(2 * length) * z

    x = corrected(0, x)  # outside the loop, where a trace sees its prediction
    x = jax.lax.fori_loop(1, step.options.corrections, corrected, x) if step.options.corrections > 1 else x
    if step.options.predictor == 'ancestral':
        mean, std = posterior(schedule, step.predict(x, t).x, x, t, s)
        return mean + std * step.noise()
    predicted = step.predict(x, t)
    moved = (2 - kept) * x - forward / schedule.sigma(t) * predicted.noise + jnp.sqrt(forward) * step.noise()
    return jnp.where(schedule.sigma(s) > 0, moved, predicted.x)


def corrected_times(step: Step) -> tuple[Array, ...]:
    return (step.t,) * (1 + step.options.corrections)


def _norm(values: Array) -> Array:
    return jnp.sqrt(jnp.square(values).reshape(len(values), -1).sum(1))
