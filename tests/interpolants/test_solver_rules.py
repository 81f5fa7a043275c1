"""Solvers against the rules of their papers, written anew in NumPy, and against trajectories in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import STD, from_image, isotropic

from genbench import rng
from genbench.interpolants import schedules, solvers
from genbench.interpolants.options import AncestralOptions

every_schedule = pytest.mark.parametrize('name', schedules.SCHEDULES)


def run(name, schedule, denoise, keys, num_steps, **options):
    """The end of a run and its start."""
    start = solvers.initial_noise(schedule, keys, (1, 1, 2))
    options = solvers.SOLVERS[name].options(**options)
    return solvers.solve(solvers.SOLVERS[name], schedule, denoise, start, keys, num_steps, options).x, start


@pytest.mark.parametrize(
    ('name', 'share'), [*[(name, 0.5) for name in schedules.SCHEDULES], ('straight', 1), ('edm', 1)]
)
@pytest.mark.parametrize(('solver', 'order'), [('ddim', 1), ('euler', 1), ('heun', 2), ('dpmpp_2m', 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(name, share, solver, order, keys):
    """Over this share of the steps. Where σ ∝ √t near the data, even steps in t end with one of length √(1 / n) in σ,
    which has an error of 1 / n whatever the order of the rule; over the whole way the others alone show theirs."""
    with jax.enable_x64(True):
        schedule, drawn = schedules.get(name), keys(4)
        start = solvers.initial_noise(schedule, drawn, (1, 1, 2))

        def spread(t):
            return np.sqrt((schedule.alpha(t) * STD) ** 2 + schedule.sigma(t) ** 2)

        def error(n):
            trace = jax.jit(lambda: solvers.trace(
                solvers.SOLVERS[solver], schedule, isotropic(schedule), start, drawn, n))()  # fmt: skip
            taken = int(n * share)
            t, end = schedule.step(n - taken, n), jnp.asarray(schedule.t_max, jnp.float64)
            return float(jnp.abs(trace.states[taken] - start * spread(t) / spread(end)).max())

        assert np.log2(error(100) / error(200)) == pytest.approx(order, abs=0.25)


@every_schedule
@pytest.mark.parametrize('solver', ['ddim', 'euler', 'heun', 'dpmpp_2m'])
@pytest.mark.parametrize('num_steps', [10, 50])
def test_no_noise_is_left_of_a_point_mass(name, solver, num_steps, keys):
    """Its denoiser is exact in every state, so whatever differs from the point has been left by the solver."""
    schedule, point = schedules.get(name), 0.3
    denoise = from_image(schedule, lambda x_t, t: jnp.full_like(x_t, point))
    x, _ = run(solver, schedule, denoise, keys(64), num_steps)
    np.testing.assert_allclose(x, point, atol=2e-6)


def curved(x_t, t):
    """No exact denoiser of anything: a smooth function that every solver must treat as its rule says."""
    module = jnp if isinstance(x_t, jax.Array) else np
    return module.tanh(x_t / (1 + t)) * 0.7 + 0.1 * module.sin(3 * x_t)


@pytest.mark.parametrize('num_steps', [5, 18])
def test_heun_on_edm_is_algorithm_1_of_karras(num_steps, keys):
    schedule = schedules.edm()
    with jax.enable_x64(True):
        found, x = run('heun', schedule, from_image(schedule, curved), keys(5), num_steps)
    x = np.asarray(x)
    times = np.arange(num_steps) / (num_steps - 1)
    times = [*(80 ** (1 / 7) + times * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0.0]
    for t, s in zip(times[:-1], times[1:], strict=True):
        d = (x - curved(x, t)) / t
        guess = x + (s - t) * d
        x = x + (s - t) * (d / 2 + (guess - curved(guess, s)) / s / 2) if s else guess
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('num_steps', [4, 10])
def test_heun_on_a_straight_path_is_the_trapezoidal_rule_in_time(num_steps, keys):
    schedule = schedules.straight()
    with jax.enable_x64(True):
        found, x = run('heun', schedule, from_image(schedule, curved), keys(5), num_steps)
    x = np.asarray(x)
    velocity = lambda x, t: (x - (1 - t) * curved(x, t)) / t - curved(x, t)  # noqa: E731
    for ahead in range(num_steps, 0, -1):
        t, s = ahead / num_steps, (ahead - 1) / num_steps
        guess = x + (s - t) * velocity(x, t)
        x = x + (s - t) * (velocity(x, t) + velocity(guess, s)) / 2 if s else guess
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['linear', 'cosine'])
@pytest.mark.parametrize('num_steps', [5, 18, 2000])  # of 2000 the last begins with less noise than was trained with
def test_heun_is_algorithm_1_of_karras_in_the_time_b(name, num_steps, keys):
    """Line by line for any s and σ, here s(b) = 1 − κ b and σ(b) = b / (1 − κ b), with the denoiser D(x / s; σ)."""
    schedule = schedules.get(name)
    with jax.enable_x64(True):
        found, x = run('heun', schedule, from_image(schedule, curved), keys(5), num_steps)
        times = np.asarray(schedule.step(num_steps - np.arange(num_steps + 1.0), num_steps))
        alphas, sigmas = np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))
    kappa = (1 - alphas[0]) / sigmas[0]
    b = sigmas / (alphas + kappa * sigmas)
    scale, level = 1 - kappa * b, b / (1 - kappa * b)
    scale_dot, level_dot = -kappa, 1 / (1 - kappa * b) ** 2

    def derivative(x, i):
        clean = curved(x / scale[i] * alphas[i], times[i])
        return (level_dot[i] / level[i] + scale_dot / scale[i]) * x - level_dot[i] * scale[i] / level[i] * clean

    x = np.asarray(x)
    for i in range(num_steps):
        d = derivative(x, i)
        guess = x + (b[i + 1] - b[i]) * d
        last = level[i + 1] == 0
        x = guess if last else x + (b[i + 1] - b[i]) * (d / 2 + derivative(guess, i + 1) / 2)
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('solver', ['euler', 'ddim'])
@pytest.mark.parametrize('name', ['linear', 'cosine', 'edm'])  # on straight σ / α is infinite at the start
def test_ddim_is_eulers_rule_in_the_noise_to_signal_ratio(name, solver, keys):
    """Euler with the slope ε̂ in σ / α for the state x_t / α, as equation 14 of DDIM has it."""
    schedule, num_steps = schedules.get(name), 6
    with jax.enable_x64(True):
        found, x = run(solver, schedule, from_image(schedule, curved), keys(5), num_steps)
        times = np.asarray(schedule.step(num_steps - np.arange(num_steps + 1.0), num_steps))
        alpha, sigma = np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))
    ratio, scaled = sigma / alpha, np.asarray(x) / alpha[0]
    for i in range(num_steps):
        x = alpha[i] * scaled
        noise = (x - alpha[i] * curved(x, times[i])) / sigma[i]
        scaled = scaled + (ratio[i + 1] - ratio[i]) * noise
    np.testing.assert_allclose(found, scaled, rtol=1e-5, atol=1e-5)


def betas_of_subsequence(num_steps):
    """β and ᾱ of DDPM's 1000 steps, or of every so-manyth of them."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[1000 // num_steps - 1 :: 1000 // num_steps]
    return 1 - alpha_bar / np.array([1.0, *alpha_bar[:-1]]), alpha_bar


@pytest.mark.parametrize('variance', ['small', 'large'])
@pytest.mark.parametrize('num_steps', [1000, 50])
def test_ancestral_steps_are_algorithm_2_of_ho(variance, num_steps, keys):
    """With the predicted image clipped as in the official code, the variances of section 3.2, no noise at the end."""
    schedule, drawn = schedules.linear(), keys(3)
    clipped = lambda x_t, t: jnp.clip(1.5 * curved(x_t, t), -1, 1)  # noqa: E731
    with jax.enable_x64(True):
        found, x = run('ancestral', schedule, from_image(schedule, clipped), drawn, num_steps, variance=variance)
        steps = rng.named(drawn, 'steps')
        draw = jax.jit(lambda index: rng.normal(rng.numbered(steps, index), 'noise', (1, 1, 2)))
        draws = [np.asarray(draw(index)) for index in range(num_steps)]
    x = np.asarray(x)
    beta, alpha_bar = betas_of_subsequence(num_steps)
    for index, n in enumerate(reversed(range(num_steps))):
        before = alpha_bar[n - 1] if n else 1.0
        image = np.clip(1.5 * curved(x, (n + 1) / num_steps), -1, 1)
        mean = np.sqrt(before) * beta[n] * image + np.sqrt(1 - beta[n]) * (1 - before) * x
        small = beta[n] * (1 - before) / (1 - alpha_bar[n])
        noise = draws[index] if n else 0
        x = mean / (1 - alpha_bar[n]) + np.sqrt({'small': small, 'large': beta[n]}[variance]) * noise
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_the_large_variance_is_that_of_noise_that_knows_no_image(keys):
    """On data N(0, I) β is the variance of p(x_s | x_t) (Ho et al. 2020, section 3.2): every state is N(0, I) again."""
    schedule = schedules.cosine()
    denoise = from_image(schedule, lambda x_t, t: schedule.alpha(t) * x_t)
    drawn, options = keys(4000), AncestralOptions(variance='large')
    start = solvers.initial_noise(schedule, drawn, (1, 1, 2))
    trace = solvers.trace(solvers.SOLVERS['ancestral'], schedule, denoise, start, drawn, 10, options=options)
    np.testing.assert_allclose(trace.states[:-1].std((1, 2, 3, 4)), 1, atol=0.04)  # five standard errors
