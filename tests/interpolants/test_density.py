"""The density of the probability-flow ODE where it is known in closed form."""

import dataclasses
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.errors import UserError
from genbench.interpolants import density, predictions, schedules
from genbench.interpolants.density import Ode, exact_divergence, hutchinson_divergence, log_density, rademacher

FINE = Ode(num_steps=100, probes=0)
SOLVERS = [FINE, Ode('rk4', num_steps=40, probes=0), Ode('dopri5', probes=0), Ode('tsit5', probes=0)]
MIXTURE = np.array([0.3, 0.7]), np.array([[-0.8, 0.5], [0.6, -0.2]]), 0.35  # weights, means, standard deviation


def unconditional(denoise):
    return lambda x_t, t, given: denoise(x_t, t)


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


def compiled(schedule, denoise, ode):
    """(x, keys, given) → log-densities."""
    if ode.solver in density.ADAPTIVE:
        pytest.importorskip('diffrax')
    return jax.jit(lambda x, keys, given: log_density(schedule, denoise, x, keys, ode, given))


def evaluate(schedule, denoise, x, keys, ode):
    return np.asarray(compiled(schedule, denoise, ode)(jnp.asarray(x, jnp.float32), keys, None))


@pytest.mark.parametrize(
    ('name', 'ode'),
    [*itertools.product(schedules.SCHEDULES, SOLVERS[:2]), ('cosine', SOLVERS[2]), ('straight', SOLVERS[3])],
    ids=lambda value: getattr(value, 'solver', value),
)
def test_a_gaussian_has_its_own_density_at_t_min(name, ode, gaussian, gaussian_denoiser, keys):
    schedule, (mean, covariance) = schedules.get(name), gaussian
    x = np.random.default_rng(0).multivariate_normal(mean, 2 * covariance, 50)
    denoise = unconditional(gaussian_denoiser(schedule, mean, covariance))
    found = evaluate(schedule, denoise, x.reshape(50, 1, 1, 2), keys(50), ode)
    alpha, sigma = (float(f(schedule.t_min)) for f in (schedule.alpha, schedule.sigma))
    wanted = stats.multivariate_normal(alpha * mean, alpha**2 * covariance + sigma**2 * np.eye(2)).logpdf(x)
    # The prior takes α/σ at t_max for 0: up to 0.008, and 1/80 on EDM's path, where the error is larger in proportion.
    np.testing.assert_allclose(found, wanted, atol=0.02 * ((1 / 80) / 0.008 if name == 'edm' else 1))


@pytest.mark.parametrize('std', [0.01, 0.1, 0.5])
@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_narrow_and_wide_gaussians_have_their_density_at_the_shipped_number_of_steps(
    name, std, gaussian_denoiser, keys
):
    """Followed down to 0.03 of a bin at 256 levels, to 0.01 bits a dimension on average and never 0.05 off."""
    schedule = schedules.get(name).stopping_at(0.03 * 2 / 256)
    alpha, sigma = (float(f(schedule.t_min)) for f in (schedule.alpha, schedule.sigma))
    law = stats.norm(scale=np.hypot(alpha * std, sigma))
    x = law.ppf((np.arange(200) + 0.5) / 200).reshape(100, 1, 1, 2)
    denoise = unconditional(gaussian_denoiser(schedule, np.zeros(2), std**2 * np.eye(2)))
    error = evaluate(schedule, denoise, x, keys(100), Ode(probes=0)) - law.logpdf(x).sum((1, 2, 3))
    bits = error / 2 / np.log(2)
    assert abs(bits.mean()) < 0.01 and np.abs(bits).max() < 0.05


@pytest.mark.parametrize('name', schedules.SCHEDULES)
def test_a_mixture_has_its_own_density_and_integrates_to_one(name, keys):
    schedule, side = schedules.get(name), np.linspace(-2.5, 2.5, 41)
    points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    denoise = unconditional(mixture_denoiser(schedule))
    found = np.exp(evaluate(schedule, denoise, points.reshape(-1, 1, 1, 2), keys(len(points)), FINE))
    assert found.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found, mixture_density(schedule, points), atol=0.02)


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
    denoise = unconditional(gaussian_denoiser(schedule, *gaussian))
    x = np.full((400, 1, 1, 2), 0.2)
    exact, estimates = (
        evaluate(schedule, denoise, x, keys(400), Ode(num_steps=30, probes=probes)) for probes in (0, 1)
    )
    assert estimates.std() > 1e-3  # the probes matter here
    assert estimates.mean() == pytest.approx(exact.mean(), abs=5 * estimates.std() / np.sqrt(400))


STD = 0.5  # of isotropic data, under noise of standard deviation t from NEAR to FAR
NEAR, FAR = 0.3, 5.0
NOISE = dataclasses.replace(schedules.edm(), t_min=NEAR, t_max=FAR)


def shrinking(x_t, t, given):
    """dx/dt = ε̂ = t x / (s² + t²), whose trajectories are x_t ∝ √(s² + t²)."""
    t = schedules.expand(t, x_t)
    noise = t * x_t / (STD**2 + t**2)
    return predictions.Prediction(x_t - t * noise, noise)


def isotropic_density(x):
    """Of x at NEAR, with N(0, FAR²) taken for the law of its end at FAR, as the ODE does."""
    stretch = np.sqrt((STD**2 + FAR**2) / (STD**2 + NEAR**2))
    return (stats.norm.logpdf(x * stretch, scale=FAR) + np.log(stretch)).sum((1, 2, 3))


@pytest.mark.parametrize(('solver', 'order', 'num_steps'), [('heun', 2, 8), ('rk4', 4, 4)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order, num_steps, keys):
    x = np.random.default_rng(0).normal(size=(6, 1, 2, 2))
    coarse = Ode(solver, num_steps=num_steps, probes=0)
    errors = [
        np.abs(evaluate(NOISE, shrinking, x, keys(6), ode) - isotropic_density(x)).max()
        for ode in (coarse, coarse.refined())
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


def test_the_error_of_an_adaptive_solver_follows_its_tolerance(keys):
    x = np.random.default_rng(0).normal(size=(6, 1, 2, 2))
    errors = [
        np.abs(evaluate(NOISE, shrinking, x, keys(6), ode) - isotropic_density(x)).max()
        for ode in (Ode('dopri5', tolerance=1e-3, probes=0), Ode('dopri5', tolerance=1e-5, probes=0).refined())
    ]
    assert errors[0] > 20 * errors[1] and errors[1] < 1e-3


@pytest.mark.parametrize('ode', [Ode('rk4', probes=0), Ode('tsit5', probes=3)], ids=lambda ode: ode.solver)
def test_the_density_of_an_image_depends_on_its_condition_and_on_no_neighbour(ode, keys):
    """It is told the mean of the data; a neighbour that is far out needs steps of its own."""

    def denoise(x_t, t, given):
        mean = schedules.expand(given['mean'], x_t)
        found = shrinking(x_t - mean, t, None)
        return found._replace(x=found.x + mean)

    near, means = np.random.default_rng(0).normal(size=(5, 1, 1, 2)), jnp.arange(5.0) / 5
    far = near * np.array([1, 1, 1, 30, 1]).reshape(5, 1, 1, 1)
    score = compiled(NOISE, denoise, ode)
    densities = [
        np.asarray(score(jnp.asarray(x, jnp.float32), keys(5), {'mean': told}))
        for x, told in ((near, means), (far, means), (near, means[::-1]))
    ]
    assert (densities[0] == densities[1]).tolist() == [True, True, True, False, True]
    assert (np.abs(densities[0] - densities[2]) > 1e-3).tolist() == [True, True, False, True, True]
    alone = score(jnp.asarray(near[4:], jnp.float32), keys(5)[4:], {'mean': means[4:]})
    np.testing.assert_allclose(alone, densities[0][4:], rtol=1e-4)  # rounding may move an adaptive step


def test_a_trajectory_that_needs_too_many_steps_has_no_density(keys, monkeypatch):
    monkeypatch.setattr(density, 'MAX_STEPS', 3)
    assert np.isnan(evaluate(NOISE, shrinking, np.ones((2, 1, 1, 2)), keys(2), Ode('tsit5', probes=0))).all()


@pytest.mark.parametrize(
    ('options', 'why'),
    [
        ({'solver': 'huen'}, "'huen'.*Did you mean heun"),
        ({'solver': 'dopri8'}, "'dopri8'.*Did you mean dopri5"),
        ({'tolerance': 0.0}, 'tolerance should be above 0'),
        ({'probes': -1}, 'probes at least 0'),
    ],
)
def test_options_that_make_no_sense_are_refused(options, why):
    with pytest.raises(UserError, match=why):
        Ode(**options)


def test_a_missing_diffrax_is_said_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, 'diffrax', None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ode\]'"):
        density.require_diffrax()


@pytest.mark.parametrize('ode', SOLVERS, ids=lambda ode: ode.solver)
def test_the_protocol_changes_with_what_the_solver_listens_to(ode):
    def protocol(**changes):
        return dataclasses.replace(ode, **changes).protocol(NOISE)

    adaptive = ode.solver in density.ADAPTIVE
    assert (protocol(tolerance=1e-7) != protocol()) == adaptive
    assert (protocol(num_steps=7) != protocol()) == (not adaptive)
    assert len({str(protocol(probes=probes)) for probes in (0, 1, 2)}) == 3
    assert (protocol()['t_min'], protocol()['t_max']) == (NEAR, FAR)
