"""Solvers against laws and trajectories that are known, and what they promise whatever the network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.interpolants import schedules, solvers, steps
from genbench.interpolants.predictions import Prediction

STD = 0.5  # of the isotropic data


def isotropic(x_t, t):
    """The exact denoiser of N(0, STD²) under the schedule `edm`."""
    t = schedules.expand(t, x_t)
    shrink = STD**2 / (STD**2 + t**2)
    return Prediction(shrink * x_t, x_t * t / (STD**2 + t**2))


def end_of_trajectory(x_t, t):
    """The exact consistency function of the same data (Song et al. 2023, section 3)."""
    t = schedules.expand(t, x_t)
    x = x_t * STD / jnp.sqrt(STD**2 + t**2)
    return Prediction(x, (x_t - x) / jnp.maximum(t, 1e-6))


def curved(x_t, t):
    """No exact denoiser of anything: a smooth function that every solver must treat as its word says."""
    x = jnp.tanh(x_t / (1 + schedules.expand(t, x_t)))
    return Prediction(x, (x_t - x) / schedules.expand(t, x_t))


def run(name, denoise, keys, num_steps, schedule=None, shape=(1, 1, 2), solve=solvers.solve):
    schedule = schedule or schedules.edm()
    start = solvers.initial_noise(schedule, keys, shape)

    def flow_map(x_t, t, s):
        seen = denoise(x_t, t)
        return schedule.perturb(seen.x, seen.noise, s)

    return solve(solvers.SOLVERS[name], schedule, denoise, start, keys, num_steps, flow_map=flow_map)


def test_heun_follows_the_exact_trajectory(keys):
    drawn = keys(3)
    states = run('heun', isotropic, drawn, 64, solve=solvers.trace).states[::8]
    times = schedules.edm().step(jnp.arange(64, -1, -8), 64)
    scale = np.sqrt(STD**2 + np.asarray(times) ** 2) / np.sqrt(STD**2 + times[0] ** 2)
    np.testing.assert_allclose(states, scale[:, None, None, None, None] * states[0], rtol=0.01, atol=1e-3)


@pytest.mark.parametrize('num_steps', [1, 3])
def test_the_exact_consistency_function_samples_the_data_in_any_number_of_steps(num_steps, keys):
    x = np.ravel(jax.jit(lambda keys: run('multistep_consistency', end_of_trajectory, keys, num_steps).x)(keys(10_000)))
    assert x.mean() == pytest.approx(0, abs=5 * STD / np.sqrt(len(x)))
    assert x.var() == pytest.approx(STD**2, rel=5 * np.sqrt(2 / len(x)))


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_ddim_carries_noise_to_the_data_distribution(name, gaussian, gaussian_denoiser, keys):
    """With an exact Gaussian denoiser the map is affine, x = A ε + b; its law N(b, A Aᵀ) is read off three points."""
    schedule, (mean, covariance) = schedules.get(name), gaussian
    denoise = gaussian_denoiser(schedule, mean, covariance)
    noise = jnp.asarray([[0, 0], [1, 0], [0, 1]], jnp.float32).reshape(3, 1, 1, 2)
    start = schedule.sigma(jnp.asarray(schedule.t_max)) * noise
    solve = jax.jit(lambda n: solvers.solve(solvers.SOLVERS['ddim'], schedule, denoise, start, keys(3), n).x)
    b, *columns = np.reshape(solve(400), (3, 2))
    a = np.stack(columns, 1) - b[:, None]
    np.testing.assert_allclose(b, mean, atol=0.01)
    np.testing.assert_allclose(a @ a.T, covariance, atol=0.01)


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_ancestral_samples_have_the_mean_and_covariance_of_the_data(name, gaussian, gaussian_denoiser, keys):
    schedule, (mean, covariance) = schedules.get(name), gaussian
    denoise = gaussian_denoiser(schedule, mean, covariance)
    x = np.reshape(jax.jit(lambda keys: run('ancestral', denoise, keys, 200, schedule).x)(keys(8000)), (-1, 2))
    np.testing.assert_allclose(x.mean(0), mean, atol=0.04)  # five standard errors
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.045)  # and the bias of 200 steps


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_the_posterior_is_bayes_rule(name):
    """q(x_s | x_t, x) ∝ q(x_t | x_s) q(x_s | x): precisions add, and so do means weighted by them."""
    schedule, x, x_t = schedules.get(name), 0.7, -0.2
    t, s = schedule.time(jnp.asarray([0.8, 0.5, 0.2])), schedule.time(jnp.asarray([0.7, 0.2, 0.1]))
    mean, std = steps.posterior(schedule, x, x_t, t, s)
    ratio = schedule.alpha(t) / schedule.alpha(s)
    prior, likelihood = schedule.sigma(s) ** 2, schedule.sigma(t) ** 2 - ratio**2 * schedule.sigma(s) ** 2
    variance = 1 / (1 / prior + ratio**2 / likelihood)
    np.testing.assert_allclose(std**2, variance, rtol=1e-3)
    wanted = variance * (schedule.alpha(s) * x / prior + ratio * x_t / likelihood)
    np.testing.assert_allclose(mean, wanted, rtol=1e-3, atol=1e-4)


def test_the_posterior_is_ddpms_table():
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    n = np.array([10, 100, 500, 1000])
    _, std = steps.posterior(schedules.linear(), 0.0, 0.0, jnp.asarray(n / 1000), jnp.asarray((n - 1) / 1000))
    wanted = betas[n - 1] * (1 - alpha_bar[n - 2]) / (1 - alpha_bar[n - 1])
    np.testing.assert_allclose(std**2, wanted, rtol=0.01)


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_one_compiled_program_serves_every_number_of_steps(name, keys):
    traces = []

    @jax.jit
    def solve(keys, num_steps):
        traces.append(num_steps)
        return run(name, curved, keys, num_steps)

    counts = (1, 2, 7) if solvers.SOLVERS[name].options.on_grid else (1, 40)  # which begins with short steps
    ends = [solve(keys(2), num_steps).x for num_steps in counts]
    assert len(traces) == 1
    assert all(np.abs(left - right).max() > 1e-3 for left, right in itertools.pairwise(ends))


@pytest.mark.parametrize('schedule', schedules.SCHEDULES.values())
def test_the_last_step_ends_at_exactly_zero_where_the_number_of_steps_is_a_constant(schedule):
    """A compiler may turn a division by a constant into a product, and n · (1 / n) need not be 1."""
    end = solvers.Solver(lambda step: jnp.full_like(step.x_t, step.s), lambda n: n)
    for num_steps in (3, 18, 25, 49):
        solve = jax.jit(lambda x, n=num_steps: solvers.solve(end, schedule(), curved, x, jnp.zeros(1), n).x)
        assert float(solve(jnp.ones((1, 1, 1, 1)))[0, 0, 0, 0]) == 0, num_steps


@pytest.mark.parametrize(
    ('name', 'schedule'), [*[(name, 'cosine') for name in solvers.SOLVERS], ('heun', 'linear'), ('heun', 'straight')]
)
def test_the_price_is_the_number_of_network_evaluations(name, schedule, keys):
    calls = itertools.count()

    def counted(x_t, t):
        jax.debug.callback(lambda: next(calls))
        return curved(x_t, t)

    path = run(name, counted, keys(2), 3, schedules.get(schedule))
    jax.effects_barrier()
    assert path.evaluations == next(calls)


@pytest.mark.parametrize('name', solvers.SOLVERS)
def test_samples_do_not_depend_on_their_batch(name, keys):
    all_keys = keys(6)
    solve = jax.jit(lambda keys, n: run(name, curved, keys, n, schedules.cosine()).x)
    whole = solve(all_keys, 30)  # with few steps, Euler–Maruyama leaves the range in which images differ
    assert len(np.unique(whole)) == whole.size
    np.testing.assert_allclose(solve(all_keys[2:4], 30), whole[2:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', [name for name in solvers.SOLVERS if solvers.SOLVERS[name].options.on_grid])
def test_a_trace_goes_from_the_noise_to_the_image_that_solve_gives(name, keys):
    trace = run(name, curved, keys(2), 4, solve=solvers.trace)
    assert trace.states.shape == (5, 2, 1, 1, 2) and trace.predictions.shape == (4, 2, 1, 1, 2)
    np.testing.assert_array_equal(trace.states[0], solvers.initial_noise(schedules.edm(), keys(2), (1, 1, 2)))
    np.testing.assert_allclose(trace.states[-1], run(name, curved, keys(2), 4).x, rtol=1e-6)
    seen = [curved(x, jnp.full(2, schedules.edm().step(4 - step, 4))).x for step, x in enumerate(trace.states[:-1])]
    np.testing.assert_allclose(trace.predictions, seen, rtol=1e-6)


def test_a_trace_may_begin_on_the_way(keys):
    whole = run('euler', curved, keys(2), 6, solve=solvers.trace)
    euler, schedule = solvers.SOLVERS['euler'], schedules.edm()
    rest = solvers.trace(euler, schedule, curved, whole.states[4], keys(2), 6, first=4)
    np.testing.assert_allclose(rest.states[4:], whole.states[4:], rtol=1e-6)
    np.testing.assert_array_equal(rest.states[:4], np.broadcast_to(whole.states[4], (4, 2, 1, 1, 2)))


@pytest.mark.parametrize(
    ('name', 'kind', 'why'),
    [
        ('multistep_consistency', 'denoiser', 'which is no sample.*Use ddim or ancestral or dpmpp_2m or euler or heun'),
        ('flow_map', 'denoiser', 'this network knows only one time.*Use ddim'),
        ('heun', 'map', 'this network jumps along it. Use flow_map'),
        *[
            (name, 'endpoint', 'gives only its end point.*Use multistep_consistency')
            for name in solvers.names('denoiser')
        ],
        ('huen', 'denoiser', "'huen'.*Did you mean heun"),
    ],
)
def test_a_solver_that_does_not_fit_is_refused_with_the_reason(name, kind, why):
    with pytest.raises(UserError, match=why):
        solvers.get(name, kind)


@pytest.mark.parametrize('kind', ['denoiser', 'endpoint', 'map'])
def test_the_solvers_of_a_kind_fit_it(kind):
    assert [solvers.get(name, kind) for name in solvers.names(kind)]


def test_a_network_of_an_unknown_kind_is_refused_in_words():
    with pytest.raises(UserError, match="'ddim' does not fit here: it needs a network of the kind 'denoiser'.*'token'"):
        solvers.get('ddim', 'token')
