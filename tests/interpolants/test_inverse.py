"""Solvers of inverse problems against the exact posterior of Gaussian data, and their formulas against matrices."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data import degradations
from genbench.errors import UserError
from genbench.evaluation import editing
from genbench.interpolants import inverse, schedules, solvers
from genbench.interpolants.inverse import Observation
from genbench.interpolants.options import PathOptions

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks' / 'posteriors.py'
SHAPE = (4, 4, 1)


@pytest.fixture(scope='module')
def posteriors():
    """The script that measures the table of docs/editing.md."""
    found = importlib.util.spec_from_file_location('posteriors', SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def measured(posteriors, correlation, problem, noise, posterior, sampler='ancestral', steps=40, draws=1000, **options):
    options = {'posterior': posterior, **options}
    law = posteriors.images(correlation)
    return posteriors.measure(law, problem, noise, sampler, options, steps=steps, draws=draws)


@pytest.mark.parametrize(('problem', 'noise'), [('half', 0.0), ('pool2', 0.2)])
def test_pigdm_draws_from_the_posterior_where_its_assumption_holds(problem, noise, posteriors):
    """Independent pixels of deviation 0.5 have the covariance r² I given x_t."""
    found = measured(posteriors, 0, problem, noise, 'pigdm', 'heun', 20, spread=0.5)
    assert found.bias < 0.06 and found.spread == pytest.approx(1, abs=0.06) and found.covariance < 0.2


@pytest.mark.parametrize('posterior', ['replacement', 'ddnm'])
def test_without_correlations_what_is_hidden_is_drawn_from_the_prior(posterior, posteriors):
    found = measured(posteriors, 0, 'half', 0.0, posterior, 'heun', 20)
    assert found.bias < 0.06 and found.spread == pytest.approx(1, abs=0.06) and found.misfit < 1e-5


def test_replacement_is_biased_and_repeats_take_most_of_it_away(posteriors):
    once = measured(posteriors, 2.0, 'half', 0.0, 'replacement')
    often = measured(posteriors, 2.0, 'half', 0.0, 'replacement', resample=6)
    assert once.bias > 0.12 and often.bias < once.bias / 2


@pytest.mark.parametrize(('posterior', 'noise'), [('replacement', 0.0), ('ddnm', 0.1), ('pigdm', 0.1)])
def test_what_is_known_is_kept_to_its_noise(posterior, noise, posteriors):
    found = measured(
        posteriors, 2.0, 'pool2', noise, posterior, steps=20, draws=100, **{'spread': 0.5} if noise else {}
    )
    assert found.misfit <= 1.3 * noise + 1e-5
    assert noise == 0 or found.misfit > noise / 2


def test_dps_comes_closer_to_what_is_known_the_heavier_it_weighs(posteriors):
    misfits = [
        measured(posteriors, 2.0, 'pool2', 0.1, 'dps', draws=100, weight=weight).misfit for weight in (0.01, 0.1)
    ]
    assert misfits[0] > 1.5 * misfits[1]


@pytest.fixture
def scene(posteriors):
    """(law, schedule, A as a matrix, an observation, x_t, t)"""
    law, schedule, rng = posteriors.images(), schedules.cosine(), np.random.default_rng(5)
    one = degradations.make('pool2', SHAPE)
    a = np.asarray(one(jnp.eye(16).reshape(16, *SHAPE)).reshape(16, -1), float).T
    y = jnp.asarray(rng.normal(size=(1, 2, 2, 1)), jnp.float32)
    x_t = jnp.asarray(rng.normal(size=(1, *SHAPE)), jnp.float32)
    return law, schedule, a, Observation(one, y, 0.1), x_t, jnp.full(1, 0.4)


def exact(law, schedule, t, x_t):
    """x̂ and ∂x̂ / ∂x_t of a normal law."""
    alpha, sigma = float(schedule.alpha(t[0])), float(schedule.sigma(t[0]))
    slope = alpha * law.covariance @ np.linalg.inv(alpha**2 * law.covariance + sigma**2 * np.eye(16))
    return law.mean + slope @ (np.asarray(x_t, float).reshape(-1) - alpha * law.mean), slope, alpha, sigma


def test_pigdm_adds_the_gradient_of_its_normal_law(scene):
    law, schedule, a, known, x_t, t = scene
    x, slope, alpha, sigma = exact(law, schedule, t, x_t)
    r2 = sigma**2 / (alpha**2 + sigma**2)  # as in the paper
    residual = np.asarray(known.y, float).reshape(-1) - a @ x
    score = slope.T @ a.T @ np.linalg.solve(r2 * a @ a.T + 0.01 * np.eye(4), residual)
    told, _ = known._replace(method='pigdm').around(schedule, law.denoiser(schedule))
    found = told(x_t, t)
    np.testing.assert_allclose(found.x.reshape(-1), x + sigma**2 / alpha * score, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(alpha * found.x + sigma * found.noise, x_t, rtol=1e-4, atol=1e-5)


def test_dps_moves_down_the_gradient_of_the_squared_misfit(scene):
    law, schedule, a, known, x_t, t = scene
    x, slope, *_ = exact(law, schedule, t, x_t)
    residual = np.asarray(known.y, float).reshape(-1) - a @ x
    gradient = -2 * slope.T @ a.T @ residual
    told, after = known._replace(method='dps', weight=0.3).around(schedule, law.denoiser(schedule))
    told(x_t, t)
    wanted = np.asarray(x_t).reshape(-1) - 0.3 / np.linalg.norm(residual) * gradient
    np.testing.assert_allclose(after(x_t, t, None).reshape(-1), wanted, rtol=1e-3, atol=1e-4)


def test_ddnm_leaves_only_the_null_space_to_the_model(scene):
    law, schedule, a, known, x_t, t = scene
    x, *_ = exact(law, schedule, t, x_t)
    inverse, y = np.linalg.pinv(a), np.asarray(known.y, float).reshape(-1)
    told, _ = known._replace(method='ddnm', noise=0.0).around(schedule, law.denoiser(schedule))
    wanted = inverse @ y + (np.eye(16) - inverse @ a) @ x
    np.testing.assert_allclose(told(x_t, t).x.reshape(-1), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('problem', 'noise', 'posterior', 'why'),
    [('blur1', 0.0, 'pigdm', 'magnifies errors'), ('blur1', 0.1, 'replacement', 'magnifies noise'),
     ('noise', 0.0, 'pigdm', 'shows the whole image')],
)  # fmt: skip
def test_a_problem_that_needs_noise_is_refused_without(problem, noise, posterior, why):
    with pytest.raises(UserError, match=why):
        inverse.check(PathOptions(problem=problem, noise=noise, posterior=posterior),
                      degradations.make(problem, SHAPE), 'denoiser')  # fmt: skip


@pytest.mark.parametrize(
    ('options', 'why'),
    [({'posterior': 'replacement', 'weight': 2}, 'does not read weight.*use dps or pigdm'),
     ({'posterior': 'ddnm', 'weight': 2, 'noise': 0.1}, 'does not read weight'),
     ({'posterior': 'dps', 'spread': 0.5}, 'does not read spread.*use ddnm or pigdm'),
     ({'posterior': 'ddnm', 'spread': 0.5}, 'only where there is noise')],
)  # fmt: skip
def test_an_option_that_a_solver_does_not_read_is_refused(options, why):
    with pytest.raises(UserError, match=why):
        inverse.check(PathOptions(problem='half', **options), degradations.make('half', SHAPE), 'denoiser')


def test_a_rounded_blur_is_undone_with_the_noise_of_rounding(posteriors):
    """The result is closer to the image than the blurred one, whose inverse without noise is far from it."""
    law, schedule, one = posteriors.images(), schedules.cosine(), degradations.make('blur1', SHAPE)
    x = np.random.default_rng(0).multivariate_normal(law.mean, law.covariance, 50).reshape(-1, *SHAPE)
    y = jnp.round((one(jnp.asarray(x, jnp.float32)) + 1) * 127.5) / 127.5 - 1
    known, record = Observation(one, y, editing.rounding(256), 'pigdm'), PathOptions()

    @jax.jit
    def draw(keys, y):
        start = solvers.initial_noise(schedule, keys, SHAPE)
        solver, told = solvers.SOLVERS['ddim'], known._replace(y=y)
        return solvers.solve(solver, schedule, law.denoiser(schedule), start, keys, 40, record, observed=told).x

    found, blurred = draw(jax.random.split(jax.random.key(0), 50), y), np.std(y - x)
    assert np.sqrt(np.mean((found - x) ** 2)) < 0.8 * blurred
    assert np.sqrt(np.mean((one.inverse(y) - x) ** 2)) > np.sqrt(np.mean((found - x) ** 2))


def test_the_error_of_an_inversion_falls_with_its_steps(posteriors, keys):
    law, schedule, solver = posteriors.images(), schedules.cosine(), solvers.SOLVERS['euler']
    rng = np.random.default_rng(0)
    images = rng.multivariate_normal(law.mean, law.covariance, 20).reshape(20, *SHAPE).astype(np.float32)
    options = PathOptions(start='inverted')

    @jax.jit
    def again(steps):
        start, kept = jnp.zeros_like(images), solvers.Kept(jnp.asarray(images))
        return solvers.solve(solver, schedule, law.denoiser(schedule), start, keys(20), steps, options, kept=kept)

    errors = [float(np.sqrt(np.mean((again(steps).x - images) ** 2))) for steps in (10, 20, 40, 80)]
    assert all(later < 0.6 * before for before, later in zip(errors, errors[1:], strict=False)), errors
    assert int(again(20).evaluations) == 40
