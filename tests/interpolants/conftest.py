"""The Gaussian oracle: data N(mean, covariance) has a denoiser in closed form under every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import expand


def _denoiser(schedule, mean, covariance):
    """E[x | x_t] = m + α S (α² S + σ² I)⁻¹ (x_t − α m) for images shaped (batch, 1, 1, d)."""
    mean, covariance = jnp.asarray(mean, jnp.float32), jnp.asarray(covariance, jnp.float32)

    def denoise(x_t, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        marginal = expand(alpha, jnp.zeros((1, 1, 1))) ** 2 * covariance
        marginal += expand(sigma, jnp.zeros((1, 1, 1))) ** 2 * jnp.eye(len(mean))
        residual = (x_t - expand(alpha, x_t) * mean).reshape(len(x_t), -1)
        white = jnp.linalg.solve(marginal, residual[..., None])[..., 0].reshape(x_t.shape)
        return Prediction(mean + expand(alpha, x_t) * (white @ covariance), expand(sigma, x_t) * white)

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
