"""Flows of Gaussian data, in closed form: what several tests compare networks and solvers with."""

import jax.numpy as jnp
import numpy as np

from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand

STD = 0.5  # of the isotropic data
DEVIATION = np.array([0.3, 0.1])  # of the data of `mean_velocity`


def from_image(schedule, image):
    """The denoiser that sees image(x_t, t)."""

    def denoise(x_t, t):
        alpha, sigma = (expand(part(t), x_t) for part in (schedule.alpha, schedule.sigma))
        x = image(x_t, expand(t, x_t))
        return Prediction(x, (x_t - alpha * x) / sigma)

    return denoise


def isotropic(schedule):
    """The exact denoiser of N(0, STD² I)."""

    def image(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * STD**2 * x_t / (alpha**2 * STD**2 + sigma**2)

    return from_image(schedule, image)


def mean_velocity(x_t, t, given=None, key=None, s=None):
    """(x_t − x_s) / (t − s) of data N(0, DEVIATION²) on the straight path, where x_t / deviation(t) stays as it is."""

    def deviation(t):
        return jnp.sqrt(jnp.square((1 - expand(t, x_t)) * DEVIATION) + jnp.square(expand(t, x_t)))

    length = jnp.where(t - s > 1e-3, t - s, 1e-3)
    return x_t * (1 - deviation(t - length) / deviation(t)) / expand(length, x_t)


def velocity(x_t, t, given=None, key=None, s=None):
    """The same from t to t, whatever s is."""
    return mean_velocity(x_t, t, s=t)
