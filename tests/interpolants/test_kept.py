"""Sampling from an original: SDEdit and RePaint, against laws in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.interpolants import schedules, solvers
from genbench.interpolants.options import PathOptions
from genbench.interpolants.predictions import Prediction

STD = 0.5


def isotropic(schedule):
    """The exact denoiser of N(0, STD² I)."""

    def denoise(x_t, t):
        alpha, sigma = (schedules.expand(part(t), x_t) for part in (schedule.alpha, schedule.sigma))
        x = alpha * STD**2 * x_t / (alpha**2 * STD**2 + sigma**2)
        return Prediction(x, (x_t - alpha * x) / sigma)

    return denoise


@pytest.mark.parametrize('name', ['cosine', 'straight', 'edm'])
def test_an_edited_image_lies_at_the_end_of_the_trajectory_through_the_noisy_original(name, keys):
    """A state at time t ends at STD / √(α² STD² + σ²) times itself (Meng et al. 2022, algorithm 1)."""
    schedule, drawn, original = schedules.get(name), keys(3), jnp.full((3, 1, 1, 2), 0.8)
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))
    options = PathOptions(strength=0.4)
    solve = jax.jit(lambda n: solvers.solve(
        solvers.SOLVERS['euler'], schedule, isotropic(schedule), start, drawn, n, options,
        kept=solvers.Kept(original)))  # fmt: skip
    path = solve(500)
    t = schedule.step(200, 500)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    noisy = alpha * original + sigma * start / schedule.sigma(jnp.asarray(schedule.t_max))
    np.testing.assert_allclose(path.x, noisy * STD / np.sqrt((alpha * STD) ** 2 + sigma**2), rtol=0.02, atol=2e-3)
    assert int(path.evaluations) == 200


def test_what_is_not_known_follows_from_what_is(gaussian_denoiser, keys):
    """Of a correlated normal law: the mean and the variance of one pixel given the other.

    To replace known pixels once a step is not enough, as RePaint shows (Lugmayr et al. 2022, section 4.2): each step
    has to be tried several times.
    """
    mean, covariance = np.asarray([0.4, -0.3]), np.asarray([[0.5, 0.4], [0.4, 0.5]])
    schedule, drawn, value = schedules.cosine(), keys(2000), 1.2
    kept = solvers.Kept(jnp.full((2000, 1, 1, 2), value), jnp.asarray([1.0, 0.0]).reshape(1, 1, 1, 2))
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))
    denoise = gaussian_denoiser(schedule, mean, covariance)

    def other(resample):
        options = solvers.SOLVERS['ancestral'].options(resample=resample)
        solve = jax.jit(lambda: solvers.solve(
            solvers.SOLVERS['ancestral'], schedule, denoise, start, drawn, 50, options, kept=kept))  # fmt: skip
        path = solve()
        assert int(path.evaluations) == 50 * resample and (path.x[..., 0] == np.float32(value)).all()
        return np.asarray(path.x[..., 1])

    wanted = mean[1] + covariance[0, 1] / covariance[0, 0] * (value - mean[0])
    variance = covariance[1, 1] - covariance[0, 1] ** 2 / covariance[0, 0]
    once, often = other(1), other(10)
    assert abs(often.mean() - wanted) < abs(once.mean() - wanted) / 2
    assert often.mean() == pytest.approx(wanted, abs=0.08)
    assert often.var() == pytest.approx(variance, rel=0.3)


@pytest.mark.parametrize('name', ['heun', 'dpmpp_2m'])
def test_the_price_of_what_is_kept(name, keys):
    schedule, calls = schedules.cosine(), itertools.count()

    def counted(x_t, t):
        jax.debug.callback(lambda: next(calls))
        return isotropic(schedule)(x_t, t)

    start = solvers.initial_noise(schedule, keys(2), (1, 1, 2))
    kept = solvers.Kept(jnp.zeros_like(start), jnp.ones((2, 1, 1, 1)))
    options = solvers.SOLVERS[name].options(strength=0.6, resample=3)
    path = solvers.solve(solvers.SOLVERS[name], schedule, counted, start, keys(2), 5, options, kept=kept)
    jax.block_until_ready(path.x)
    jax.effects_barrier()
    assert int(path.evaluations) == next(calls) == 3 * int(solvers.SOLVERS[name].evaluations(3))
