"""Solvers of SDEs against the formulas of their papers, and the laws of their samples on normal data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import STD, from_image, isotropic

from genbench.errors import UserError
from genbench.interpolants import options, schedules, solvers
from genbench.interpolants.steps import Step


def curved(x_t, t):
    module = jnp if isinstance(x_t, jax.Array) else np
    return module.tanh(x_t / (1 + t)) * 0.7 + 0.1 * module.sin(3 * x_t)


def moved(name, record, schedule, x, t, s, noises):
    """One step, whose draws are given."""
    step = Step(schedule, from_image(schedule, curved), jnp.asarray(x), jnp.asarray(t), jnp.asarray(s),
                lambda number=0: jnp.asarray(noises)[number], jnp.asarray(10), record)  # fmt: skip
    return solvers.SOLVERS[name].move(step, None)[0]


T, S = 0.6, 0.5
X, NOISES = np.random.default_rng(0).normal(size=(3, 2, 2, 1)), np.random.default_rng(1).normal(size=(3, 3, 2, 2, 1))


def vp(t):
    log_alpha = -0.25 * 19.9 * t**2 - 0.05 * t
    return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))


def score(x, t):
    alpha, sigma = vp(t)
    return (alpha * curved(x, t) - x) / sigma**2


def test_euler_maruyama_is_the_reverse_sde_of_score_sde():
    """x + [½ β x + β score] Δt + √(β Δt) z (Y. Song et al. 2021, equations 6 and 33)."""
    beta = 0.1 + 19.9 * T
    wanted = X + (beta / 2 * X + beta * score(X, T)) * (T - S) + np.sqrt(beta * (T - S)) * NOISES[0]
    with jax.enable_x64(True):
        found = moved('euler_maruyama', options.EulerMaruyamaOptions(), schedules.vp(), X, T, S, NOISES)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_euler_maruyama_with_sigma_is_sits():
    """v Δt + ½ w score Δt + √(w Δt) z with w = t on the straight path (Ma et al. 2024, equation 6, time reversed)."""
    image = curved(X, T)
    velocity, gradient = (X - image) / T, -(X - (1 - T) * image) / T**2
    wanted = X - (velocity - T / 2 * gradient) * (T - S) + np.sqrt(T * (T - S)) * NOISES[0]
    with jax.enable_x64(True):
        record = options.EulerMaruyamaOptions(diffusion='sigma')
        found = moved('euler_maruyama', record, schedules.straight(), X, T, S, NOISES)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('predictor', ['reverse_diffusion', 'ancestral'])
def test_predictor_and_corrector_are_the_algorithms_of_song(predictor):
    """Two steps of algorithm 5, then one of algorithm 3 or of DDPM's ancestral sampling, with β of the step taken."""
    kept = vp(T)[0] / vp(S)[0]
    beta, x = 1 - kept**2, X
    norm = lambda values: np.sqrt((values**2).sum((1, 2, 3), keepdims=True))  # noqa: E731
    for z in NOISES[1:]:
        g = score(x, T)
        length = 2 * (1 - beta) * (0.2 * 2 / norm(g)) ** 2  # the noise of 4 pixels has the norm √4
        x = x + length * g + np.sqrt(2 * length) * z
    if predictor == 'ancestral':
        mean, deviation = (x + beta * score(x, T)) / np.sqrt(1 - beta), vp(S)[1] / vp(T)[1] * np.sqrt(beta)
    else:
        mean, deviation = (2 - np.sqrt(1 - beta)) * x + beta * score(x, T), np.sqrt(beta)
    with jax.enable_x64(True):
        record = options.CorrectorOptions(snr=0.2, corrections=2, predictor=predictor)
        found = moved('predictor_corrector', record, schedules.vp(), X, T, S, NOISES)
    np.testing.assert_allclose(found, mean + deviation * NOISES[0], rtol=1e-6)


def test_a_langevin_step_adds_noise_of_one_length_whatever_is_drawn():
    """√(2 l) z with l = 2 α² r² d / ‖score‖² for each image (algorithm 5 in expectation); the last step gives x̂ = c x.

    If l followed from ‖z‖² itself, the deviation at 4×4 pixels would be greater by √((d + 2) / d), which is 6%.
    """
    count, t, schedule = 20_000, 0.3, schedules.vp()
    x = np.random.default_rng(2).normal(size=(1, 4, 4, 1))
    z = np.random.default_rng(3).normal(size=(count, 4, 4, 1))
    step = Step(schedule, isotropic(schedule), jnp.repeat(jnp.asarray(x), count, 0), jnp.asarray(t), jnp.asarray(0.0),
                lambda number=0: jnp.asarray(z), jnp.asarray(10), options.CorrectorOptions(snr=0.2))  # fmt: skip
    found = np.asarray(solvers.SOLVERS['predictor_corrector'].move(step, None)[0])
    alpha, sigma = vp(t)
    variance = alpha**2 * STD**2 + sigma**2
    length = 2 * alpha**2 * 0.2**2 * 16 / ((x / variance) ** 2).sum()
    deviation = alpha * STD**2 / variance * np.sqrt(2 * length)
    spread = (found - found.mean(0)).std()
    assert spread == pytest.approx(deviation, rel=5 / np.sqrt(2 * found.size))


LAWS = [
    ('dpmpp_2m_sde', 'cosine', options.DEFAULT),
    ('dpmpp_2m_sde', 'straight', options.DEFAULT),
    ('euler_maruyama', 'cosine', options.EulerMaruyamaOptions()),
    ('euler_maruyama', 'straight', options.EulerMaruyamaOptions(diffusion='sigma')),
]


@pytest.mark.parametrize(('name', 'path', 'record'), LAWS)
def test_samples_have_the_mean_and_covariance_of_the_data(name, path, record, gaussian, gaussian_denoiser, keys):
    schedule, (mean, covariance), drawn = schedules.get(path), gaussian, keys(8000)
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))
    denoise = gaussian_denoiser(schedule, mean, covariance)
    solve = jax.jit(lambda: solvers.solve(solvers.SOLVERS[name], schedule, denoise, start, drawn, 200, record).x)
    x = np.reshape(solve(), (-1, 2))
    np.testing.assert_allclose(x.mean(0), mean, atol=0.04)  # five standard errors
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.045)  # and the bias of 200 steps


@pytest.mark.parametrize('predictor', ['reverse_diffusion', 'ancestral'])
def test_langevin_steps_leave_the_law_of_the_samples_as_it_is(predictor, keys):
    """On images of many pixels, whose norms hardly vary. A step of ratio r widens N(0, v) to v (1 + 4 r⁴) alone."""
    schedule, drawn = schedules.vp(), keys(200)
    start = solvers.initial_noise(schedule, drawn, (8, 8, 1))
    record = options.CorrectorOptions(predictor=predictor)
    x = solvers.solve(
        solvers.SOLVERS['predictor_corrector'], schedule, isotropic(schedule), start, drawn, 200, record
    ).x
    assert float(x.mean()) == pytest.approx(0, abs=5 * STD / np.sqrt(x.size))
    assert float(x.std()) == pytest.approx(STD, rel=5 / np.sqrt(2 * x.size) + 0.02)  # and the bias of 200 steps


@pytest.mark.parametrize(
    ('record', 'why'),
    [
        (options.EulerMaruyamaOptions(), 'none of where it starts, at pure noise; use diffusion=sigma'),
        (options.CorrectorOptions(), 'straight starts at pure noise; use predictor=ancestral'),
    ],
)
def test_a_schedule_that_a_solver_cannot_follow_is_refused(record, why):
    record.check(schedules.vp())
    with pytest.raises(UserError, match=why):
        record.check(schedules.straight())
