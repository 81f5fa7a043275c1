"""The density of the probability-flow ODE where it is known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.interpolants import predictions, schedules
from genbench.interpolants.density import exact_divergence, hutchinson_divergence, log_density, rademacher

MIXTURE = np.array([0.3, 0.7]), np.array([[-0.8, 0.5], [0.6, -0.2]]), 0.35  # weights, means, standard deviation


def drift(schedule, denoise):
    return lambda x_t, t: predictions.velocity(schedule, denoise(x_t, t), t)


def mixture_denoiser(schedule):
    """E[x | x_t] of the mixture: the components' own, weighted by their responsibility for x_t."""
    weights, means, std = (jnp.asarray(value, jnp.float32) for value in MIXTURE)

    def denoise(x_t, t):
        alpha, sigma = schedules.expand(schedule.alpha(t), x_t), schedules.expand(schedule.sigma(t), x_t)
        variance = (alpha * std) ** 2 + sigma**2
        residual = x_t - alpha * means[:, None, None, None]  # (component, batch, 1, 1, d)
        log_weight = jnp.log(weights)[:, None] - (residual**2 / variance).sum((2, 3, 4)) / 2
        responsibility = jax.nn.softmax(log_weight, axis=0)[..., None, None, None]
        noise = (responsibility * residual * sigma / variance).sum(0)
        clean = (responsibility * (means[:, None, None, None] + alpha * std**2 / variance * residual)).sum(0)
        return predictions.Prediction(clean, noise)

    return denoise


def mixture_density(schedule, points):
    weights, means, std = MIXTURE
    alpha, sigma = schedule.alpha(schedule.t_min), schedule.sigma(schedule.t_min)
    std = np.hypot(alpha * std, sigma)
    parts = zip(weights, means, strict=True)
    return sum(w * stats.norm.pdf(points, alpha * m, std).prod(-1) for w, m in parts)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_gaussian_has_its_own_density_at_t_min(name, gaussian, gaussian_denoiser, keys):
    schedule, (mean, covariance) = schedules.get(name), gaussian
    x = np.random.default_rng(0).multivariate_normal(mean, 2 * covariance, 50)
    velocity = drift(schedule, gaussian_denoiser(schedule, mean, covariance))
    images = jnp.asarray(x, jnp.float32).reshape(50, 1, 1, 2)
    found = jax.jit(lambda x: log_density(schedule, velocity, x, keys(50), num_steps=100, probes=0))(images)
    alpha, sigma = (float(f(schedule.t_min)) for f in (schedule.alpha, schedule.sigma))
    wanted = stats.multivariate_normal(alpha * mean, alpha**2 * covariance + sigma**2 * np.eye(2)).logpdf(x)
    np.testing.assert_allclose(found, wanted, atol=0.02)  # α(t_max) is up to 0.008, and the prior takes it for 0


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_mixture_has_its_own_density_and_integrates_to_one(name, keys):
    schedule, side = schedules.get(name), np.linspace(-2.5, 2.5, 41)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    images = jnp.asarray(points, jnp.float32).reshape(-1, 1, 1, 2)
    velocity = drift(schedule, mixture_denoiser(schedule))
    solve = jax.jit(lambda x: log_density(schedule, velocity, x, keys(len(x)), num_steps=100, probes=0))
    density = np.exp(solve(images))
    assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(density, mixture_density(schedule, points), atol=0.02)


def slope(x):
    """A field whose Jacobian is neither symmetric nor constant; divergence written out below."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return jnp.stack([jnp.sin(a * b), b**2 + 3 * a * c, c * jnp.exp(a)], -1)


def points(count=5):
    return jax.random.normal(jax.random.key(1), (count, 1, 1, 3))


def written_out(x):
    a, b, _ = np.reshape(x, (-1, 3)).T
    return b * np.cos(a * b) + 2 * b + np.exp(a)


def test_the_exact_divergence_is_the_trace_of_the_jacobian():
    value, divergence = exact_divergence(slope, points())
    np.testing.assert_allclose(value, slope(points()), rtol=1e-6)
    np.testing.assert_allclose(divergence, written_out(points()), rtol=1e-4, atol=1e-5)


def test_hutchinsons_estimate_is_unbiased():
    """Its mean over all 2³ equally likely probes is the divergence, and a single probe is not."""
    signs = jnp.asarray(list(itertools.product([-1.0, 1.0], repeat=3))).reshape(8, 1, 1, 1, 3)
    probes = jnp.broadcast_to(signs, (8, *points().shape))
    value, divergence = hutchinson_divergence(slope, points(), probes)
    np.testing.assert_allclose(value, slope(points()), rtol=1e-6)
    np.testing.assert_allclose(divergence, written_out(points()), rtol=1e-4, atol=1e-4)
    assert np.abs(hutchinson_divergence(slope, points(), probes[:1])[1] - written_out(points())).max() > 0.1


def test_probes_are_signs_that_each_image_draws_from_its_own_key(keys):
    whole = np.asarray(rademacher(keys(6), 1000, (1, 1, 3)))
    assert whole.shape == (1000, 6, 1, 1, 3)
    assert set(np.unique(whole)) == {-1.0, 1.0}
    np.testing.assert_array_equal(rademacher(keys(6)[2:4], 1000, (1, 1, 3)), whole[:, 2:4])
    assert np.abs(whole.mean(0)).max() < 5 / np.sqrt(1000)
    flat = whole.reshape(1000, -1)
    assert np.abs(flat.T @ flat / 1000 - np.eye(18)).max() < 5 / np.sqrt(1000)


def test_the_density_with_probes_agrees_with_the_exact_one_on_average(gaussian, gaussian_denoiser, keys):
    schedule = schedules.straight()
    velocity = drift(schedule, gaussian_denoiser(schedule, *gaussian))
    x = jnp.full((400, 1, 1, 2), 0.2)
    exact, estimates = (
        np.asarray(
            jax.jit(lambda x, p=probes: log_density(schedule, velocity, x, keys(400), num_steps=30, probes=p))(x)
        )
        for probes in (0, 1)
    )
    assert estimates.std() > 1e-3  # the probes matter here
    assert estimates.mean() == pytest.approx(exact.mean(), abs=5 * estimates.std() / np.sqrt(400))
