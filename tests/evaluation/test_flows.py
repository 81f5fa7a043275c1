"""Flows whose paths are known: their distances by brute force and closed form, and the energy that they spend."""

import itertools
import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import flows, harness, wasserstein
from genbench.families.base import Networks, Sampler
from genbench.interpolants.schedules import expand
from genbench.training import samplers

RNG = np.random.default_rng(0)
SPEC = DataSpec('points', (1, 2, 1), levels=2**20)


def standardised(count):
    """Normal points (count, 2) of mean zero and deviation one, so that little of what is compared is left to chance."""
    points = RNG.normal(size=(count, 2))
    return (points - points.mean(0)) / points.std(0)


def test_the_distance_is_the_least_over_all_orders():
    x, y = RNG.normal(size=(2, 6, 3))
    costs = [np.square(x - y[list(order)]).sum(1).mean() for order in itertools.permutations(range(6))]
    assert wasserstein(x, y) == pytest.approx(np.sqrt(min(costs)), rel=1e-12)


def test_it_is_the_value_of_the_linear_programme_over_couplings():
    x, y = RNG.normal(size=(2, 12, 2))
    cost = np.square(x[:, None] - y).sum(-1).ravel()
    sums = np.vstack([np.kron(np.eye(12), np.ones(12)), np.kron(np.ones(12), np.eye(12))])
    least = optimize.linprog(cost, A_eq=sums, b_eq=np.full(24, 1 / 12)).fun
    assert wasserstein(x, y) ** 2 == pytest.approx(least, rel=1e-9)


def test_between_gaussians_it_has_a_closed_form():
    """|m|² + Σ (s − r)² for deviations s and r along the axes, as far as 1,000 points tell."""
    mean, first, second = np.array([3.0, -1.0]), np.array([1.0, 0.5]), np.array([2.0, 0.25])
    x, y = first * standardised(1000), mean + second * standardised(1000)
    assert wasserstein(x, y) ** 2 == pytest.approx(10 + 1 + 0.0625, rel=0.03)


def test_sets_of_different_size_are_refused():
    with pytest.raises(UserError, match='two sets of at most 5,000 points and of one size, not 3 and 4'):
        wasserstein(np.zeros((3, 2)), np.zeros((4, 2)))


MEAN, DEVIATION = np.array([3.0, -1.0]).reshape(1, 2, 1), np.array([2.0, 0.5]).reshape(1, 2, 1)


def transported(x_t, t, given):
    """ε − x along x = MEAN + DEVIATION ε, which is the optimal transport of a normal to N(MEAN, DEVIATION²)."""
    t = expand(t, x_t)
    noise = (x_t - (1 - t) * MEAN) / ((1 - t) * DEVIATION + t)
    return noise - (MEAN + DEVIATION * noise)


def independent(x_t, t, given):
    """E[ε − x | x_t] of x and ε drawn apart."""
    t = expand(t, x_t)
    white = (x_t - (1 - t) * MEAN) / ((1 - t) ** 2 * DEVIATION**2 + t**2)
    return t * white - (MEAN + (1 - t) * DEVIATION**2 * white)


def carried(velocity, count=1000, steps=100):
    options = {'name': 'flow_matching', 'scale': 16.0}
    family = families.get('flow_matching')(config.resolve({'family': options, 'network': {'name': 'mlp'}}), SPEC)
    blueprint = types.SimpleNamespace(family=family, bind_state=lambda state: Networks({'denoiser': velocity}))
    data = MEAN + DEVIATION * standardised(count).reshape(count, 1, 2, 1)
    images = np.asarray(SPEC.quantise(jnp.asarray(data / 16, jnp.float32)))
    found = flows.carry(blueprint, {}, Sampler('euler', steps), images, None, 0)
    np.testing.assert_allclose(found.data, data.reshape(count, 2), atol=1e-3)  # in the units of the model
    return found


@pytest.mark.parametrize(('text', 'schedule', 'why'), [
    ('rk45:8', 'straight', 'rk45 takes other steps for each image'),
    ('ancestral:8', 'straight', 'ancestral draws noise'),
    ('dpmpp_2m_sde:8', 'straight', 'dpmpp_2m_sde draws noise'),
    ('euler_maruyama:8:diffusion=sigma', 'straight', 'euler_maruyama draws noise'),
    ('predictor_corrector:8:predictor=ancestral', 'straight', 'predictor_corrector draws noise'),
    ('ddim:8:eta=0.5', 'straight', 'ddim draws noise'),
    ('heun:8:churn=3', 'straight', 'heun draws noise'),
    ('euler:8', 'cosine', 'this schedule is cosine'),
    ('euler:8', 'straight:shift=2', 'this schedule is straight:shift=2'),
])  # fmt: skip
def test_the_energy_of_paths_that_it_does_not_describe_is_refused(text, schedule, why):
    chosen = {'family': {'name': 'flow_matching', 'schedule': schedule}, 'network': {'name': 'mlp'}}
    family = families.get('flow_matching')(config.resolve(chosen), SPEC)
    sampler = samplers.parse(text, family)
    flows.check(family, sampler, ('w2',))
    with pytest.raises(UserError, match=f'path_energy needs an ODE .* but .*{why}'):
        flows.check(family, sampler, flows.METRICS)


@pytest.mark.parametrize('text', ['euler:8', 'ddim:8', 'heun:8', 'dpmpp_3m:8', 'unipc:8:spacing=rho7'])
def test_the_energy_is_measured_under_every_ode_on_shared_steps(text):
    family = families.get('flow_matching')(
        config.resolve({'family': {'name': 'flow_matching'}, 'network': {'name': 'mlp'}}), SPEC
    )
    flows.check(family, samplers.parse(text, family), flows.METRICS)


def test_optimal_transport_spends_the_squared_distance_and_no_more():
    """|m|² + Σ (s − 1)²; each path is straight, so its energy is its squared length, and one step does as well."""
    found = carried(transported)
    lengths = np.square(found.ends - found.starts).sum(1)
    np.testing.assert_allclose(found.energies, lengths, rtol=1e-4)
    np.testing.assert_allclose(carried(transported, steps=1).energies, lengths, rtol=1e-4)
    assert found.energies.mean() == pytest.approx(10 + 1 + 0.25, rel=0.03)
    assert found.path_energy()[0] < 0.06
    assert found.w2()[0] < 0.3  # of two sets of one distribution


def test_paths_between_points_drawn_apart_spend_what_the_velocity_says():
    """∫ E|u|² dt of the Gaussian closed form by quadrature, relative to |m|² + Σ (s − 1)²."""
    found = carried(independent)
    t = (np.arange(2000)[:, None] + 0.5) / 2000
    s = DEVIATION.reshape(2)
    variance = (1 - t) ** 2 * s**2 + t**2
    energy = (np.square(MEAN).sum() + (np.square(t - (1 - t) * s**2) / variance).sum(1)).mean()
    value, details = found.path_energy()
    assert details['energy'] == pytest.approx(energy, rel=0.03)
    assert value == pytest.approx(energy / 11.25 - 1, abs=0.04)
    assert value > 0.05


def test_a_run_has_rows_of_both_and_other_families_say_why_not(trained, tmp_path):
    asked = ['evaluation.metrics=w2,path_energy', 'evaluation.samplers=euler:2', 'evaluation.num_samples=50',
             'evaluation.sets=2']  # fmt: skip
    rows = harness.evaluate(trained('flow_matching'), asked, quiet=True)
    assert [row['metric'] for row in rows] == ['w2', 'path_energy']
    for row in rows:
        assert len(row['values']) == 2 and row['value'] == pytest.approx(np.mean(row['values'])) and row['sd'] > 0
        assert row['protocol']['num_samples'] == row['n'] == 50 and row['protocol']['reference']['split'] == 'test'
    assert harness.evaluate(trained('flow_matching'), asked, quiet=True) == []
    with pytest.raises(UserError, match='gaussian does not follow paths'):
        harness.evaluate(trained('gaussian'), [asked[0], 'evaluation.num_samples=20'], quiet=True)
    with pytest.raises(UserError, match='compare 4,000 samples with as many images of test'):
        harness.evaluate(trained('flow_matching'), [asked[0], 'evaluation.num_samples=4000'], quiet=True)
