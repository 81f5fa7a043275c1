"""Annealed importance sampling of probabilistic PCA, whose likelihood is known, and of small networks."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench import families
from genbench.data.spec import DataSpec
from genbench.evaluation import ais
from genbench.families.base import LatentModel, Networks
from genbench.training.state import Blueprint

W = np.random.default_rng(0).normal(size=(6, 3))
MU, SCALE = np.linspace(-1, 1, 6), 0.3
MARGINAL = stats.multivariate_normal(MU, W @ W.T + SCALE**2 * np.eye(6))
SPEC = DataSpec('images', (4, 4, 1), levels=5, classes=3)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def linear(seen=None):
    """x = W z + μ + noise; what is drawn from it is passed to `seen`."""

    def log_likelihood(z, x):
        return jax.scipy.stats.norm.logpdf(x, z @ W.T + MU, SCALE).sum(-1)

    def draw(z, keys):
        x = z @ W.T + MU + SCALE * jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys)
        if seen is not None:
            jax.debug.callback(seen.append, x)
        return x

    return LatentModel((3,), lambda images, keys: images, log_likelihood, draw, {})


def annealer(seen=None, num_steps=100, chains=8, leapfrog=5):
    options = types.SimpleNamespace(num_steps=num_steps, chains=chains, leapfrog=leapfrog)
    return ais.Annealer(lambda: linear(seen), options)


def errors(count=64, seed=0, **changes):
    """Estimates minus the truth, for vectors from the model."""
    x = jnp.asarray(MARGINAL.rvs(count, random_state=1).reshape(count, 6), jnp.float32)
    return np.asarray(annealer(**changes).log_prob((), x, keys(count, seed))) - MARGINAL.logpdf(x)


def gap(count=128, **changes):
    lower, upper = annealer(**changes).bounds((), keys(count))
    return np.asarray(upper - lower)


def test_the_estimate_is_the_exact_marginal_likelihood():
    found = errors(num_steps=1000, chains=16)
    assert found.mean() == pytest.approx(0, abs=0.05)
    assert found.std() < 0.2


def test_few_temperatures_fall_short_and_more_come_nearer():
    """The weights' mean is p(x) whatever the temperatures, so their logarithm is below log p(x), the more so the wider
    they are spread."""
    few, more = (errors(count=128, num_steps=num_steps, chains=4).mean() for num_steps in (10, 100))
    assert few < -1 and few / 2 < more < 0


def test_weights_are_unbiased_however_few_the_temperatures():
    """E Π p(x | z)^Δβ = p(x), here over 5,000 chains of one vector and its pilots."""
    found = errors(count=1, num_steps=20, chains=5000)
    assert found[0] == pytest.approx(0, abs=0.1)


def test_the_two_bounds_enclose_the_truth():
    """With 100 temperatures each bound is about 0.18 away on average, and the mean over 256 vectors varies by 0.03 to
    0.04. With many more temperatures the bounds come so near that their noise decides the sign."""
    seen = []
    lower, upper = annealer(seen, num_steps=100).bounds((), keys(256))
    jax.effects_barrier()
    truth = MARGINAL.logpdf(seen[0])
    assert -0.4 < (lower - truth).mean() < 0 < (upper - truth).mean() < 0.4
    assert np.median(np.abs(lower - truth)) < 0.6 and np.median(np.abs(upper - truth)) < 0.6


def test_longer_chains_close_the_gap():
    short, long = (gap(num_steps=num_steps, chains=4).mean() for num_steps in (20, 400))
    assert short > 1 and 0 < long < 0.4


def test_an_estimate_depends_on_its_own_image_and_key_alone():
    x = jnp.asarray(MARGINAL.rvs(6, random_state=1), jnp.float32)
    score = lambda x, keys: np.asarray(annealer(num_steps=20).log_prob((), x, keys))  # noqa: E731
    np.testing.assert_allclose(score(x[2:4], keys(6)[2:4]), score(x, keys(6))[2:4], rtol=1e-5)
    assert (score(x, keys(6, seed=1)) != score(x, keys(6))).all()


def test_temperatures_go_from_prior_to_posterior_with_small_steps_at_both_ends():
    betas = np.asarray(ais.temperatures(50))
    assert betas[0] == 0 and betas[-1] == pytest.approx(1) and (np.diff(betas) > 0).all()
    np.testing.assert_allclose(betas + betas[::-1], 1, atol=1e-6)
    assert np.diff(betas)[[0, -1]].max() < np.diff(betas)[25] / 5


class Linear(nnx.Module):
    def __init__(self, weights):
        self.weights = nnx.Param(jnp.asarray(weights, jnp.float32))

    def __call__(self, z, given):
        return (z @ self.weights[...].T).reshape(-1, 2, 2, 1)


def test_the_generator_of_a_gan_is_scored_as_the_mean_of_a_normal(tiny):
    """A linear generator of fine bins: log N(x; 0, WWᵀ + σ²I) and the widths of the bins."""
    spec, weights = DataSpec('images', (2, 2, 1), levels=4096), 0.3 * W[:4]
    config = tiny('gan', 'network.latent=3', 'evaluation.ais.num_steps=500', 'evaluation.ais.observation_scale=0.2')
    networks = Networks({'generator': Linear(weights)})
    likelihood = ais.likelihood(families.get('gan')(config, spec), networks, config.evaluation.ais)
    marginal = stats.multivariate_normal(np.zeros(4), weights @ weights.T + 0.2**2 * np.eye(4))
    images = spec.quantise(0.5 * marginal.rvs(32, random_state=0)).reshape(-1, 2, 2, 1)
    found = likelihood.log_prob(networks, images, None, keys(32))
    wanted = marginal.logpdf(np.reshape(spec.dequantise(images), (-1, 4))) + 4 * np.log(2 / 4096)
    assert np.mean(found - wanted) == pytest.approx(0, abs=0.05)
    assert (likelihood.method, likelihood.kind) == ('ais', 'estimate')
    said = {
        'dequantisation': 'uniform',
        'observation_scale': 0.2,
        'num_steps': config.evaluation.ais.num_steps,
        'chains': 4,
        'leapfrog': 5,
    }
    assert said.items() <= likelihood.protocol.items()


def test_a_small_vae_is_estimated_above_its_bound_and_its_gap_is_known(tiny):
    """Of random networks, whose encoder is far from the posterior."""
    config = tiny('vae', 'family.conditional=True', 'family.latent=2',
                  'evaluation.ais.num_steps=40', 'evaluation.ais.chains=4', 'evaluation.ais.leapfrog=3')  # fmt: skip
    family, given = families.get('vae')(config, SPEC), {'label': np.arange(8) % 3}
    blueprint = Blueprint(family)
    batch = {'image': jnp.zeros((8, *SPEC.shape), jnp.int32), 'label': jnp.asarray(given['label']), 'key': keys(8)}
    abstract = jax.eval_shape(blueprint.initial_state, jax.random.key(0), batch, {})
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    state = {'params': jax.tree.map(draw, abstract['params']), 'aux': abstract['aux']}
    networks = blueprint.bind(state['params'], state['aux'])
    likelihood = ais.likelihood(family, networks, config.evaluation.ais)
    images = jnp.asarray(rng.integers(0, 5, (8, *SPEC.shape)), jnp.int32)

    def score(one):
        run = (
            jax.jit(lambda *inputs: one.log_prob(networks, *inputs))
            if one.traceable
            else functools.partial(one.log_prob, networks)
        )
        return np.asarray((jax.jit(run) if one.traceable else run)(images, given, keys(8)))

    assert score(likelihood).mean() > score(family.likelihoods[0]).mean()
    lower, upper = ais.simulated_gap(blueprint, state, given, 8, 0, config.evaluation.ais)
    error = (upper - lower).std() / np.sqrt(8)
    assert lower.shape == (8,) and -3 * error < (upper - lower).mean() < 1 + 3 * error


def test_a_family_without_a_decoder_has_no_estimate(tiny):
    config = tiny('gaussian')
    assert ais.likelihood(families.get('gaussian')(config, SPEC), {}, config.evaluation.ais) is None
