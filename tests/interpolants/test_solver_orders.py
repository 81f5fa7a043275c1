"""Orders of convergence on a mixture of two normal distributions, whose trajectories scipy follows in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import from_image
from scipy import integrate

from genbench.interpolants import options, schedules, solvers
from genbench.interpolants.multistep import History
from genbench.interpolants.steps import Step

MEANS, STD = (0.6, -0.4), 0.3
FIRST, LAST = 0.7, 0.25


def image(x_t, alpha, sigma, module=np):
    """E[x | x_t], with the responsibility of the first component."""
    variance = (alpha * STD) ** 2 + sigma**2
    one, other = ((x_t - alpha * mean) ** 2 / variance / 2 for mean in MEANS)
    share = 1 / (1 + module.exp(one - other))
    mean = share * MEANS[0] + (1 - share) * MEANS[1]
    return mean + alpha * STD**2 / variance * (x_t - alpha * mean)


def path(t):
    log_alpha = -0.25 * 19.9 * t**2 - 0.05 * t
    return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))


@functools.cache
def trajectory():
    """Time → the states of four trajectories, by the probability-flow ODE of Y. Song et al. 2021, equation 13."""

    def slope(t, x):
        alpha, sigma = path(t)
        beta, score = 0.1 + 19.9 * t, (alpha * image(x, alpha, sigma) - x) / sigma**2
        return -beta / 2 * (x + score)

    found = integrate.solve_ivp(
        slope, (1, 0.2), [-1.1, -0.3, 0.2, 0.9], method='DOP853', rtol=1e-12, atol=1e-13, dense_output=True
    )
    return found.sol


def convergence(name, record, count):
    """log2 of the errors' ratio at LAST, after `count` and twice as many even steps from FIRST, where multistep solvers
    know the exact past."""
    solver, schedule, x = solvers.SOLVERS[name], schedules.vp(), trajectory()
    denoise = from_image(schedule, lambda x_t, t: image(x_t, schedule.alpha(t), schedule.sigma(t), jnp))
    shaped = lambda t: jnp.asarray(x(t)).reshape(4, 1, 1, 1)  # noqa: E731

    @jax.jit
    def end(count, memory):
        def move(index, state):
            t, s = (FIRST + (LAST - FIRST) * one / count for one in (index, index + 1))
            return solver.move(Step(schedule, denoise, state[0], t, s, lambda: 0, count, record, ahead=99), state[1])

        return jax.lax.fori_loop(0, count, move, (shaped(FIRST), memory))[0]

    def error(count):
        memory = solver.memory and solver.memory(shaped(FIRST))
        if isinstance(memory, History):
            past = FIRST + (FIRST - LAST) / count * np.arange(1, len(memory.t) + 1)
            seen = [denoise(shaped(t), jnp.full(4, t)) for t in past]
            memory = History(jnp.stack([one.noise if name == 'deis' else one.x for one in seen]), jnp.asarray(past))
        return float(jnp.abs(end(jnp.asarray(count), memory).ravel() - x(LAST)).max())

    return np.log2(error(count) / error(2 * count))


@pytest.mark.parametrize(
    ('name', 'record', 'order'),
    [
        ('dpmpp_2m', options.DEFAULT, 2),
        ('dpmpp_3m', options.Dpmpp3mOptions(), 3),
        ('dpmpp_3m', options.Dpmpp3mOptions(curvature='half'), 2),
        ('dpmpp_2s', options.DEFAULT, 2),
        ('dpmpp_3s', options.DEFAULT, 3),
        *[('unipc', options.UnipcOptions(order=order), order + 1) for order in (2, 3)],
        *[('deis', options.DeisOptions(degree=degree), degree + 1) for degree in (2, 3)],
        ('deis', options.DeisOptions(degree=2, axis='log_rho'), 3),
    ],
)
def test_doubling_the_steps_divides_the_error_by_two_to_the_order(name, record, order):
    with jax.enable_x64(True):
        count = 64 if record == options.UnipcOptions(order=3) else 32  # with 32, its rate is still 3.6
        assert convergence(name, record, count) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize('tolerance', [1e-4, 1e-7])
def test_the_adaptive_solver_keeps_its_tolerance_from_noise_to_data(tolerance):
    """In the slope's own time, from t = 1 to t_min, by scipy with a tolerance of 1e-12; then Euler's step to zero."""
    with jax.enable_x64(True):
        schedule, start = dataclasses.replace(schedules.vp(), t_min=0.2), jnp.asarray(trajectory()(1.0))
        denoise = from_image(schedule, lambda x_t, t: image(x_t, schedule.alpha(t), schedule.sigma(t), jnp))
        solver, keys = solvers.SOLVERS['rk45'], jax.random.split(jax.random.key(0), 4)
        record = options.AdaptiveOptions(tolerance=tolerance)
        solve = jax.jit(lambda n: solvers.solve(
            solver, schedule, denoise, start.reshape(4, 1, 1, 1), keys, n, record).x)  # fmt: skip
        found, more = (np.asarray(solve(n)).ravel() for n in (60, 90))
    end = trajectory()(0.2)
    alpha, sigma = path(0.2)
    kappa = (1 - path(1.0)[0]) / path(1.0)[1]
    seen = image(end, alpha, sigma)
    b, slope = sigma / (alpha + kappa * sigma), (end - alpha * seen) / sigma - kappa * seen
    wanted = end / (alpha + kappa * sigma) - b * slope
    assert 1e-12 < np.abs(found - wanted).max() < 100 * tolerance
    np.testing.assert_allclose(found, more, rtol=1e-12)  # all have arrived, and wait
