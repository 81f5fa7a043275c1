"""Objectives and the learned prior of the VAE, on a linear Gaussian model whose posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import evidence
from genbench.families.base import Sampler
from genbench.families.vae import VAE
from genbench.training.state import Blueprint

SPEC, COUNT = DataSpec('numbers', (1, 1, 1), levels=2), 40_000
SLOPE, NOISE, X = np.array([0.8, -0.5]), 0.6, 0.7  # x = SLOPE · z + noise, at one x


class Linear(VAE):
    """The encoder's mean and log-scale are parameters, here of one image, and so is the decoder's intercept."""

    def _encode(self, networks, images, given, key=None):
        rows = lambda one: jnp.broadcast_to(one, (len(images), 2))  # noqa: E731
        return rows(networks['mean']), rows(networks['log_std'])

    def _observed(self, networks, z, images, given, key=None):
        return jax.scipy.stats.norm.logpdf(images.reshape(-1), z @ SLOPE + networks['intercept'], NOISE), {}


OFF = {'mean': jnp.array([0.9, -0.2]), 'log_std': jnp.array([-0.5, -0.1]), 'intercept': jnp.array(0.1)}


@pytest.fixture
def gradients(resolve, keys):
    """`gradients(objective, draws, parameters)` → the mean loss in nats and its gradient, of many draws."""
    batch = {'image': jnp.full((COUNT, 1, 1, 1), X), 'key': keys(COUNT)}

    def make(objective, draws, **options):
        family = Linear(resolve('vae', latent=2, objective=objective, draws=draws, **options), SPEC)
        nats = lambda networks, step: np.log(2) * family.loss(networks, batch, jax.random.key(0), step)[0]  # noqa: E731
        return jax.jit(jax.value_and_grad(nats))

    return make


def elbo(mean, log_std, intercept):
    """In closed form: E log p(x | z) − KL(q ‖ N(0, I))."""
    variance = jnp.exp(2 * log_std)
    fit = jax.scipy.stats.norm.logpdf(X, mean @ SLOPE + intercept, NOISE) - variance @ SLOPE**2 / NOISE**2 / 2
    return fit - (mean @ mean + variance.sum() - 2 - 2 * log_std.sum()) / 2


@pytest.mark.parametrize(('objective', 'draws'), [('elbo', 1), ('stl', 2), ('dreg', 1)])
def test_gradients_of_the_elbo_have_the_mean_of_its_closed_form(objective, draws, gradients):
    """With one draw the doubly reparametrised gradient is that of the ELBO, too."""
    value, found = gradients(objective, draws)(OFF, 0)
    wanted = jax.grad(lambda networks: -elbo(**networks))(OFF)
    assert value == pytest.approx(-float(elbo(**OFF)), abs=0.02)
    for name in OFF:
        np.testing.assert_allclose(found[name], wanted[name], atol=0.03)


def test_the_doubly_reparametrised_gradient_is_that_of_the_bound_of_many_draws(gradients):
    """Against finite differences of the bound from importance weights, with the same noise on both sides."""
    found, loss = gradients('dreg', 3)(OFF, 0)[1], gradients('iwae', 3)
    assert gradients('dreg', 3)(OFF, 0)[0] == pytest.approx(float(loss(OFF, 0)[0]), rel=1e-5)
    for name in ('mean', 'log_std'):
        for index in (0, 1):
            ends = [loss({**OFF, name: OFF[name].at[index].add(step)}, 0)[0] for step in (0.05, -0.05)]
            assert found[name][index] == pytest.approx(float(ends[0] - ends[1]) / 0.1, abs=0.02)
    ends = [loss({**OFF, 'intercept': OFF['intercept'] + step}, 0)[0] for step in (0.05, -0.05)]
    assert found['intercept'] == pytest.approx(float(ends[0] - ends[1]) / 0.1, abs=0.01)


@pytest.mark.parametrize(('objective', 'still'), [('stl', True), ('dreg', True), ('iwae', False)])
def test_at_the_exact_posterior_some_gradients_have_no_variance(objective, still, resolve, keys):
    """Few images, so that the noise of a gradient shows. The posterior is made diagonal: one dimension is not seen."""
    family = Linear(resolve('vae', latent=2, objective=objective, draws=2), SPEC)
    family._observed = lambda networks, z, images, given, key=None: (
        jax.scipy.stats.norm.logpdf(images.reshape(-1), 0.8 * z[:, 0], NOISE),
        {},
    )
    precision = 1 + 0.8**2 / NOISE**2
    exact = {
        'mean': jnp.array([0.8 * X / NOISE**2 / precision, 0.0]),
        'log_std': jnp.array([-np.log(precision) / 2, 0]),
    }
    batch = {'image': jnp.full((3, 1, 1, 1), X), 'key': keys(3)}
    found = jax.grad(lambda networks: family.loss(networks, batch, jax.random.key(0), 0)[0])(exact)
    assert (max(float(np.abs(slope).max()) for slope in found.values()) < 1e-5) == still


def test_free_nats_and_warm_up_change_the_cost_of_the_divergence_as_the_papers_say(gradients):
    each = np.asarray(jnp.square(OFF['mean']) + jnp.exp(2 * OFF['log_std']) - 1 - 2 * OFF['log_std']) / 2
    assert each.min() < 0.3 < each.max()
    plain, free = (gradients('elbo', 1, free_nats=least)(OFF, 0)[0] for least in (0.0, 0.3))
    assert free - plain == pytest.approx(0.3 - each.min(), abs=1e-4)
    rising = gradients('elbo', 1, kl_warmup=100, beta=2.0)
    steps = [float(rising(OFF, step)[0]) for step in (0, 50, 100, 1000)]
    np.testing.assert_allclose(np.diff(steps), [each.sum(), each.sum(), 0], atol=1e-4)


def test_free_nats_are_of_the_mean_over_the_batch_and_stop_the_gradient_below():
    """Two images with a divergence of 0 and of 2 nats, so of 1 in the mean."""
    mean = jnp.array([[0.0], [2.0]])
    cost = lambda mean, free: evidence.divergence(mean, jnp.zeros((2, 1)), free)[1]  # noqa: E731
    assert [float(cost(mean, free)) for free in (0.0, 0.5, 1.5)] == [1.0, 1.0, 1.5]
    slopes = [jax.grad(cost)(mean, free)[:, 0].tolist() for free in (0.5, 1.5)]
    assert slopes == [[0.0, 1.0], [0.0, 0.0]]


def test_the_learned_prior_is_a_mixture_of_posteriors():
    mean, log_std = (jnp.asarray(np.random.default_rng(seed).normal(size=(3, 2))) for seed in (0, 1))
    z = jnp.asarray(np.random.default_rng(2).normal(size=(5, 2)))
    wanted = np.mean(
        [stats.norm(m, np.exp(s)).pdf(np.asarray(z)).prod(1) for m, s in zip(mean, log_std, strict=True)], 0
    )
    found = evidence.log_mixture(z, mean, log_std) - np.log(2 * np.pi)
    np.testing.assert_allclose(np.exp(found), wanted, rtol=1e-4)


def test_a_learned_prior_starts_from_images_is_trained_and_sampled(make_family, batch, keys):
    family = make_family('vae', pseudo_inputs=3)
    blueprint = Blueprint(family)
    networks = blueprint.bind_state(jax.jit(blueprint.initial_state)(jax.random.key(0), batch, {}))
    start = family.observation.encode(batch['image'][:3])
    np.testing.assert_allclose(networks['prior'].images[...], start, atol=0.06)
    assert family.updates[0].networks == ('encoder', 'decoder', 'prior')

    log_prior = lambda prior: family._log_prior({**networks, 'prior': prior}, jnp.ones((2, 16))).sum()  # noqa: E731
    (slope,) = jax.tree.leaves(nnx.jit(nnx.grad(log_prior))(networks['prior']))
    assert np.abs(slope).max(axis=(1, 2, 3)).min() > 0

    # Latents at zero give the means of the components, each of which some keys choose.
    @jax.jit
    def both(keys):
        mean, _ = family._components(networks)
        images = family.generate(networks, jnp.zeros((60, 16)), keys, None, Sampler('mean'))
        return images, family.observation.mean(family._decode(networks, mean, None))

    drawn, allowed = ({one.tobytes() for one in np.asarray(images)} for images in both(keys(60)))
    assert drawn == allowed
    assert family.latent_model(networks, None) is None


@pytest.mark.parametrize(
    ('options', 'why'),
    [
        ({'objective': 'dreg', 'free_nats': 0.1}, 'free_nats is 0.1, which objective=dreg ignores; set it to 0'),
        ({'objective': 'stl', 'kl_warmup': 5}, 'kl_warmup is 5, which objective=stl ignores'),
        ({'pseudo_inputs': 3, 'free_nats': 0.1}, 'cannot be combined with family.free_nats'),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family('vae', **options)


def test_a_learned_prior_of_a_conditional_model_is_refused(make_family):
    with pytest.raises(UserError, match='cannot be combined with conditions'):
        make_family('vae', True, pseudo_inputs=3)
