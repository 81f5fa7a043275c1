"""What a network predicts, and the one conversion between predictions.

Every prediction is y = a(t) x + b(t) ε with two known coefficients. Together with x_t = α x + σ ε this is a 2×2 system.
Any prediction therefore gives the clean image x and the noise ε, and from these every other prediction.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genbench.data.conditions import Given
from genbench.errors import UserError, did_you_mean
from genbench.interpolants.options import FULL
from genbench.interpolants.schedules import Schedule, expand

Array = jax.Array


class Prediction(NamedTuple):
    """The clean image and the noise that a network predicts from x_t, both shaped like x_t.

    `variance` comes from a network's second output and is shaped like x_t. It gives the variance of a reverse step as
    the fraction v of the way from log β̃ to log β (Nichol & Dhariwal 2021, equation 15). Otherwise it is None.
    """

    x: Array
    noise: Array
    variance: Array | None = None


Denoiser = Callable[[Array, Array], Prediction]  # (x_t, t (batch,)) → Prediction

SIGMA_DATA = 0.5  # standard deviation of images in [−1, 1] (Karras et al. 2022, table 1)


def _preconditioned(a: Array, s: Array, *_: Array) -> tuple[Array, Array]:
    """F in D = c_skip x_t / α + c_out F (Karras et al. 2022, equation 7 at the noise level σ / α). F has variance one
    at every noise level if the data have the variance SIGMA_DATA²."""
    q = _deviation(a, s)
    return s / (SIGMA_DATA * q), -SIGMA_DATA * a / q


def _deviation(a: Array, s: Array) -> Array:
    """√(α² SIGMA_DATA² + σ²)."""
    return jnp.sqrt(jnp.square(a * SIGMA_DATA) + jnp.square(s))


# (α, σ, dα/dt, dσ/dt) → (a, b)
_COEFFICIENTS = {
    'noise': lambda a, s, a_dot, s_dot: (jnp.zeros_like(a), jnp.ones_like(a)),
    'x': lambda a, s, a_dot, s_dot: (jnp.ones_like(a), jnp.zeros_like(a)),
    'v': lambda a, s, a_dot, s_dot: (-s, a),  # Salimans & Ho 2022, appendix D
    'velocity': lambda a, s, a_dot, s_dot: (a_dot, s_dot),  # dx_t/dt at fixed x and ε
    'score': lambda a, s, a_dot, s_dot: (jnp.zeros_like(a), -1 / s),  # ∇ log p(x_t | x)
    'preconditioned': _preconditioned,
}
NAMES = tuple(_COEFFICIENTS)


def check(name: str) -> str:
    """The name itself, or a UserError if no prediction has this name."""
    if name not in _COEFFICIENTS:
        raise UserError(f'There is no prediction {name!r}. {did_you_mean(name, NAMES)}')
    return name


def target(name: str, schedule: Schedule, x: Array, noise: Array, t: Array) -> Array:
    """The output of a perfect network for x_t = α x + σ ε."""
    a, b = _COEFFICIENTS[check(name)](*schedule.coefficients(t))
    return expand(a, x) * x + expand(b, x) * noise


def seen(name: str, schedule: Schedule, x_t: Array, t: Array) -> Array:
    """The network's input: x_t, which a preconditioned prediction scales to variance one (c_in)."""
    if name != 'preconditioned':
        return x_t
    return x_t / expand(_deviation(schedule.alpha(t), schedule.sigma(t)), x_t)


def outputs(y: Array, x_t: Array) -> tuple[Array, Array | None]:
    """Split a network's output into its prediction and, if it has twice the channels, the fraction for the variance.

    The second output stands for β̃ at −1 and β at 1, so a fresh network is half-way between them (official code of
    Nichol & Dhariwal 2021).
    """
    channels = x_t.shape[-1]
    return (y, None) if y.shape[-1] == channels else (y[..., :channels], (1 + y[..., channels:]) / 2)


def convert(name: str, schedule: Schedule, y: Array, x_t: Array, t: Array) -> Prediction:
    """The clean image and the noise that a network's output y at (x_t, t) implies."""
    coefficients = schedule.coefficients(t)
    a, b = _COEFFICIENTS[check(name)](*coefficients)
    alpha, sigma = coefficients[:2]
    determinant = alpha * b - sigma * a
    a, b, alpha, sigma, determinant = (expand(v, x_t) for v in (a, b, alpha, sigma, determinant))
    return Prediction(x=(b * x_t - sigma * y) / determinant, noise=(alpha * y - a * x_t) / determinant)


def error_of_image(name: str, schedule: Schedule, t: Array) -> Array:
    """The size (batch,) of the prediction's error for an error of one in the image, with α δx + σ δε = 0."""
    alpha, sigma, *slopes = schedule.coefficients(t)
    a, b = _COEFFICIENTS[check(name)](alpha, sigma, *slopes)
    return jnp.abs(a - b * alpha / sigma)


def denoiser(
    network: Callable[..., Array],
    name: str,
    schedule: Schedule,
    given: Given = None,
    guidance: float | Array = 0.0,
    clip: bool | float = False,
    key: Array | None = None,
    interval: tuple[float, float] = FULL,
    negative: Given = None,
    guide: Denoiser | None = None,
    plain_noise: bool = False,
    slope: Callable[[Array, Array], Array] | None = None,
) -> Denoiser:
    """Wrap a network(x_t, t, given) in a function that predicts the clean image and the noise.

    Args:
      guidance: w of classifier-free guidance, y = (1 + w) y(given) − w y(negative) (Ho & Salimans 2022, equation 6).
        0 uses the conditional network alone. With a guide, it is w in y + w (y − y_guide). It is one number per image,
        (batch,), or one for all.
      clip: True clips the predicted image to [−1, 1] and recomputes the noise (Ho et al. 2020's sampler). A number is
        the fraction of pixels that sets a dynamic threshold (`thresholded`).
      key: the key of the network's dropout in training; None: no dropout.
      interval: the noise levels at which guidance acts (`guided_at`). At other levels the network runs once. All images
        of a batch must then have the same time.
      negative: the conditions that guidance moves away from; None stands for no conditions.
      guide: the weaker model that guidance moves away from instead (Karras et al. 2024, Guiding a Diffusion Model with
        a Bad Version of Itself, equation 3, whose weight is 1 + w).
      plain_noise: give the noise of what guidance moves away from (Chung et al. 2024, CFG++), with the guided image,
        which at a guidance of 0 is that of the conditions alone.
      slope: (x_t, t) → ∇ log p(label | x_t). Guidance then adds w times this to the score (Dhariwal & Nichol 2021).
    """
    several = isinstance(guidance, jax.Array)
    guided = (several or guidance != 0 or plain_noise) and (given is not None or guide is not None)
    if key is not None:
        network = functools.partial(network, key=key)

    def apply(x_t, t):
        image, time = seen(name, schedule, x_t, t), schedule.condition(t)
        y, variance = outputs(network(image, time, given), x_t)

        def away(y):
            weight = expand(guidance, x_t) if several else guidance
            if slope is not None:
                return y + weight * _of_score(name, schedule, slope(x_t, t), t), y
            if guide is None:
                plain = outputs(network(image, time, negative), x_t)[0]
            else:
                plain = target(name, schedule, *guide(x_t, t)[:2], t)
            return y + weight * (y - plain), plain

        plain = y
        if guided and interval == FULL:
            y, plain = away(y)
        elif guided:
            y, plain = jax.lax.cond(guided_at(schedule, t[0], interval), away, lambda y: (y, y), y)
        prediction = convert(name, schedule, y, x_t, t)
        if clip is not False:
            limited = jnp.clip(prediction.x, -1, 1) if clip is True else thresholded(prediction.x, clip)
            prediction = with_image(schedule, limited, x_t, t)
        noise = convert(name, schedule, plain, x_t, t).noise if plain_noise else prediction.noise
        return Prediction(prediction.x, noise, variance)

    return apply


def _of_score(name: str, schedule: Schedule, change: Array, t: Array) -> Array:
    """The change (batch, …) of a prediction if the score at x_t changes so: by σ² / α in the image and −σ in the noise.

    Where there is no signal, x_t says nothing of the label, and the change is zero.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    image = jnp.where(alpha > 0, jnp.square(sigma) / jnp.where(alpha > 0, alpha, 1), 0)
    noise = jnp.where(alpha > 0, -sigma, 0)
    return target(name, schedule, expand(image, change) * change, expand(noise, change) * change, t)


def on_path(denoise: Denoiser, schedule: Schedule, other: Schedule) -> Denoiser:
    """Make a denoiser for the path `schedule` accept states on the path `other`.

    The denoiser sees each state at its own time with the same σ / α, scaled to its own σ. States with more noise than
    at its t_max are treated as if they were at t_max.
    """
    if schedule.name == other.name:
        return denoise

    def apply(x_t, t):
        alpha, sigma = other.alpha(t), other.sigma(t)
        own = schedule.time_of(sigma / (alpha + schedule.kappa * sigma))
        predicted = denoise(expand(schedule.sigma(own) / sigma, x_t) * x_t, own)
        return with_image(other, predicted.x, x_t, t)

    return apply


def guided_at(schedule: Schedule, t: Array, interval: tuple[float, float]) -> Array:
    """Whether the noise level σ / α at t lies in an interval, ends included (Kynkäänniemi et al. 2024).

    Both ends are moved outwards by one part in 10⁴, so that rounding does not exclude a step meant to lie on an end.
    """
    low, high = interval
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    above = sigma >= low * (1 - 1e-4) * alpha
    return above if math.isinf(high) else above & (sigma <= high * (1 + 1e-4) * alpha)


def thresholded(x: Array, share: float) -> Array:
    """x (batch, …), clipped to [−s, s] and divided by s. s is the quantile `share` of the image's |x|, and at least 1
    (Saharia et al. 2022, section 2.3)."""
    size = jnp.quantile(jnp.abs(x).reshape(len(x), -1), share, axis=1)
    limit = expand(jnp.maximum(size, 1), x)
    return jnp.clip(x, -limit, limit) / limit


def with_image(schedule: Schedule, x: Array, x_t: Array, t: Array) -> Prediction:
    """The prediction for x_t whose clean image is x."""
    alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
    return Prediction(x, (x_t - alpha * x) / sigma)
