"""The Gaussian oracle: data N(mean, covariance) has a denoiser in closed form under every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand


def _denoiser(schedule, mean, covariance):
    """E[x | x_t] = m + α S (α² S + σ² I)⁻¹ (x_t − α m) for images (batch, 1, 1, d), in the eigenbasis of S."""
    values, vectors = (jnp.asarray(part, jnp.float32) for part in np.linalg.eigh(covariance))
    mean = jnp.asarray(mean, jnp.float32)

    def denoise(x_t, t):
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        white = (x_t - alpha * mean) @ vectors / (alpha**2 * values + sigma**2)
        return Prediction(mean + alpha * (white * values) @ vectors.T, sigma * white @ vectors.T)

    return denoise


@pytest.fixture
def gaussian_denoiser():
    return _denoiser


@pytest.fixture
def gaussian():
    """A correlated mean and covariance in two dimensions."""
    return np.array([0.4, -0.3]), np.array([[0.5, 0.2], [0.2, 0.3]])


@pytest.fixture
def keys():
    return lambda count, seed=0: jax.random.split(jax.random.key(seed), count)
