"""The normalizing flow before training, when it is known: independent pixels whose logits are normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

from genbench import config
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import normalizing_flow
from genbench.families.base import Sampler
from genbench.training.state import Blueprint

pytestmark = pytest.mark.unoptimized
SPEC = DataSpec('pixels', (2, 2, 1), levels=5, classes=3)
MARGIN = 0.02
EDGES = special.logit(MARGIN + (1 - 2 * MARGIN) * np.arange(6) / 5)
MASSES = np.diff(stats.norm.cdf(EDGES))  # of the five levels; what lies beyond the outermost edges is lost


@pytest.fixture
def fresh():
    """`fresh(draws)` → (family, networks before the first step)."""

    def make(draws=1):
        resolved = config.resolve({
            'family': {'name': 'normalizing_flow'},
            'network': {'channels': 8, 'multipliers': (1,), 'steps': 2, 'margin': MARGIN},
            'evaluation': {'dequantisation_draws': draws},
        })  # fmt: skip
        family = normalizing_flow.NormalizingFlow(resolved, SPEC)
        return family, family.networks(nnx.Rngs(0))

    return make


def nats(family, networks, keys, count=4000):
    likelihood = family.likelihoods[-1]
    images = jnp.broadcast_to(jnp.array([0, 1, 2, 4]).reshape(2, 2, 1), (count, 2, 2, 1))
    return np.asarray(jax.jit(lambda keys: likelihood.log_prob(networks, images, None, keys))(keys(count)))


def test_more_draws_bring_the_bound_nearer_to_the_probability_of_the_image(fresh, keys):
    truth = np.log(MASSES[[0, 1, 2, 4]]).sum()
    means = [nats(*fresh(draws), keys).mean() for draws in (1, 4, 64)]
    assert means[0] < means[1] < means[2] < truth + 0.01
    assert means[0] < truth - 0.05 and means[2] == pytest.approx(truth, abs=0.01)


def test_one_draw_is_the_mean_log_density_over_the_bin(fresh, keys):
    """∫ log p du by the midpoint rule, p the derivative of the normal's distribution function of the logit."""
    u = (np.arange(5 * 2000) + 0.5) / (5 * 2000)
    p = MARGIN + (1 - 2 * MARGIN) * u
    log_density = stats.norm.logpdf(special.logit(p)) + np.log((1 - 2 * MARGIN) / 2 / (p * (1 - p)))
    wanted = log_density.reshape(5, 2000).mean(1)[[0, 1, 2, 4]].sum() + 4 * np.log(2 / 5)
    found = nats(*fresh(), keys)
    assert found.mean() == pytest.approx(wanted, abs=5 * found.std() / np.sqrt(len(found)))


def test_draws_have_the_probabilities_that_the_density_gives(fresh, keys):
    family, networks = fresh()
    sample = jax.jit(lambda keys: family.sample(networks, keys, None, Sampler('direct')).images)
    images = np.reshape(sample(keys(20_000)), (-1, 4))
    lost = (1 - MASSES.sum()) / 2  # beyond the edges, which quantising adds to the outermost levels
    wanted = MASSES + lost * np.array([1, 0, 0, 0, 1])
    for pixel in images.T:
        shares = np.bincount(pixel, minlength=5) / len(images)
        np.testing.assert_allclose(shares, wanted, atol=5 * 0.5 / np.sqrt(len(images)))


def test_training_starts_from_normalised_images(make_family, batch):
    """After the first batch has been seen, its vectors have mean 0 and variance 1."""
    family = make_family('normalizing_flow', True)
    blueprint = Blueprint(family)
    networks = blueprint.bind_state(jax.jit(blueprint.initial_state)(jax.random.key(0), batch, {}))
    x = family.spec.dequantise(batch['image'], jax.random.uniform(jax.random.key(1), batch['image'].shape))
    z, _ = jax.jit(lambda x: networks['flow'](x, {'label': batch['label']}))(x)
    assert np.mean(z) == pytest.approx(0, abs=0.1) and np.var(z) == pytest.approx(1, abs=0.15)


def test_the_loss_is_the_negative_log_likelihood_in_bits(fresh, keys):
    family, networks = fresh()
    images = jnp.broadcast_to(jnp.array([0, 1, 2, 4]).reshape(2, 2, 1), (4000, 2, 2, 1))
    loss, _ = jax.jit(lambda key: family.loss(networks, {'image': images, 'key': keys(4000)}, key, 0))(
        jax.random.key(1)
    )
    assert loss == pytest.approx(SPEC.bits_per_dim(nats(family, networks, keys).mean()), abs=0.02)


def test_a_density_bounds_the_probability_of_the_image_and_says_by_how_many_draws(fresh):
    for draws, expected in ((1, [1]), (3, [1, 3])):
        found = fresh(draws)[0].likelihoods
        assert [(one.method, one.kind) for one in found] == [(f'density_{k}', 'lower_bound') for k in expected]
        assert [one.protocol['dequantisation_draws'] for one in found] == expected


def test_a_network_that_cannot_be_inverted_is_refused():
    family = normalizing_flow.NormalizingFlow(
        config.resolve({'family': {'name': 'normalizing_flow'}, 'network': {'name': 'unet'}}), SPEC
    )
    with pytest.raises(UserError, match="'unet', which cannot be inverted; use couplings"):
        family.networks(nnx.Rngs(0))
