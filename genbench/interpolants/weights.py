"""Weights of a regression over time: (schedule, prediction, t) → factor of the prediction's squared error.

A paper states its weight for the error of one prediction, and the errors of all other predictions are multiples of it.
Each rule here is written for its paper's prediction and converted once, in `_stated`. A rule therefore gives the
image's error the same weight whatever the network predicts. Only `none` leaves the error of the prediction as it is. A
family may add weights to its own copy of `WEIGHTS`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genbench.interpolants import predictions
from genbench.interpolants.choices import Choice
from genbench.interpolants.predictions import SIGMA_DATA
from genbench.interpolants.schedules import Schedule
from genbench.ranges import ANY, NOT_NEGATIVE, POSITIVE

Array = jax.Array


def none(schedule: Schedule, prediction: str, t: Array) -> Array:
    return jnp.ones_like(t)


def _stated(name: str, rule: Callable[..., Array]) -> Callable[..., Array]:
    """Turn a rule (schedule, t) for the squared error of the prediction `name` into a weight for any prediction."""

    def weight(schedule: Schedule, prediction: str, t: Array, **numbers: float) -> Array:
        stated, wanted = (predictions.error_of_image(one, schedule, t) for one in (name, prediction))
        return rule(schedule, t, **numbers) * jnp.square(stated / wanted)

    return weight


def _edm(schedule: Schedule, t: Array) -> Array:
    """λ at the noise level σ / α (Karras et al. 2022, table 1), for the image's error."""
    level = schedule.sigma(t) / schedule.alpha(t)
    return 1 / jnp.square(SIGMA_DATA) + 1 / jnp.square(level)


def _min_snr(schedule: Schedule, t: Array, *, gamma: float) -> Array:
    """min(SNR, γ), for the image's error (Hang et al. 2023, equation 7)."""
    return jnp.minimum(_snr(schedule, t), gamma)


def _truncated_snr(schedule: Schedule, t: Array) -> Array:
    """max(SNR, 1), for the image's error (Salimans & Ho 2022, section 4)."""
    return jnp.maximum(_snr(schedule, t), 1)


def _snr_plus_one(schedule: Schedule, t: Array) -> Array:
    """SNR + 1, for the image's error (Salimans & Ho 2022, section 4)."""
    return _snr(schedule, t) + 1


def _p2(schedule: Schedule, t: Array, *, k: float, gamma: float) -> Array:
    """1 / (k + SNR)^γ, for the noise's error (Choi et al. 2022, equation 8)."""
    return 1 / (k + _snr(schedule, t)) ** gamma


def _sigmoid(schedule: Schedule, t: Array, *, bias: float) -> Array:
    """The weight `elbo` times sigmoid(b − log SNR) (Kingma & Gao 2023, section 3; Hoogeboom et al. 2024, section 3)."""
    return _elbo(schedule, t) * jax.nn.sigmoid(bias - schedule.log_snr(t))


def _elbo(schedule: Schedule, t: Array) -> Array:
    """−½ dSNR/dt (t_max − t_min), for the image's error (Kingma et al. 2021, equation 15).

    With times even in t, the mean of the weighted squared errors is the bound's diffusion term in nats per dimension.
    """
    alpha, sigma, alpha_dot, sigma_dot = schedule.coefficients(t)
    return (schedule.t_max - schedule.t_min) * alpha * (alpha * sigma_dot - alpha_dot * sigma) / sigma**3


def _snr(schedule: Schedule, t: Array) -> Array:
    return jnp.square(schedule.alpha(t) / schedule.sigma(t))


WEIGHTS: dict[str, Choice] = {
    'none': Choice(none),
    'edm': Choice(_stated('x', _edm)),
    'min_snr': Choice(_stated('x', _min_snr), {'gamma': (5.0, POSITIVE)}),
    'truncated_snr': Choice(_stated('x', _truncated_snr)),
    'snr_plus_one': Choice(_stated('x', _snr_plus_one)),
    'p2': Choice(_stated('noise', _p2), {'k': (1.0, POSITIVE), 'gamma': (1.0, NOT_NEGATIVE)}),
    'sigmoid': Choice(_stated('x', _sigmoid), {'bias': (2.0, ANY)}, needs=('even times',)),
    'elbo': Choice(_stated('x', _elbo), needs=('even times',)),
}
