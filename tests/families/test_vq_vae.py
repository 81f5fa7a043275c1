"""Quantisers against k-means and against grids that are listed; the VQ-VAE against sums over all of its codes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.cluster.vq import kmeans2

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Networks, Sampler
from genbench.networks.quantisers import Codebook, Scalars

VECTORS = np.random.default_rng(0).normal(size=(50, 2, 2, 3)).astype(np.float32)


def codebook(decay, size=6):
    made = Codebook(positions=4, size=size, channels=3, decay=decay)
    made.start(jnp.asarray(VECTORS), jax.random.key(0))
    return made


def moved(made, times):
    for _ in range(times):
        made.observe(VECTORS, made.assign(VECTORS))
    return np.asarray(made.codes)


def test_without_memory_a_step_of_the_codebook_is_one_of_k_means():
    made = codebook(decay=0.0)
    expected, _ = kmeans2(VECTORS.reshape(-1, 3), np.asarray(made.codes), iter=1, minit='matrix', missing='raise')
    np.testing.assert_allclose(moved(made, 1), expected, atol=1e-5)


def test_with_memory_it_ends_where_k_means_does():
    made = codebook(decay=0.5)
    found = moved(made, 200)
    expected, _ = kmeans2(VECTORS.reshape(-1, 3), found, iter=1, minit='matrix', missing='raise')
    np.testing.assert_allclose(found, expected, atol=1e-4)
    counts = np.stack([np.bincount(row, minlength=6) for row in np.asarray(made.assign(VECTORS)).reshape(50, 4).T])
    np.testing.assert_allclose(made.shares[...], counts / 50, atol=1e-5)


def test_codes_without_vectors_move_to_vectors_of_the_batch_and_others_stay():
    made = codebook(decay=0.0)
    made.total[...] = made.total[...].at[2].set(100.0)  # far from all
    before = moved(made, 1)
    made.revive(VECTORS, below=0.03, key=jax.random.key(1))
    after = np.asarray(made.codes)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(after[others], before[others], rtol=1e-6)
    assert np.isclose(VECTORS.reshape(-1, 3), after[2], atol=1e-5).all(1).any()


@pytest.mark.parametrize('levels', [(3,), (4, 3), (8, 5, 2 + 3)])
def test_scalars_are_the_whole_grid_and_each_index_has_its_code(levels):
    made = Scalars(positions=1, levels=levels, decay=0.9)
    axes = [(np.arange(n) - n // 2) / (n // 2) for n in levels]
    grid = np.array([point[::-1] for point in itertools.product(*axes[::-1])])  # the first channel changes fastest
    np.testing.assert_allclose(made.lookup(jnp.arange(len(grid))), grid, atol=1e-6)
    far = np.random.default_rng(1).normal(0, 3, size=(20000, len(levels)))
    assert set(np.asarray(made.assign(far)).tolist()) == set(range(len(grid)))


def test_three_levels_are_the_rounded_hyperbolic_tangent_with_its_gradient():
    made = Scalars(positions=1, levels=(3,), decay=0.9)
    z = jnp.linspace(-2, 2, 41)[:, None]
    (index, code), gradient = made.quantise(z), jax.grad(lambda z: made.quantise(z)[1].sum())(z)
    np.testing.assert_allclose(code, jnp.round(jnp.tanh(z)), atol=1e-6)
    np.testing.assert_array_equal(index, jnp.round(jnp.tanh(z[:, 0])) + 1)
    np.testing.assert_allclose(gradient, 1 - jnp.tanh(z) ** 2, atol=2e-3)


def test_the_gradient_of_a_learned_code_passes_to_the_encoder_unchanged():
    made = codebook(decay=0.9)
    weights = np.random.default_rng(2).normal(size=VECTORS.shape)
    gradient = jax.grad(lambda z: (made.quantise(z)[1] * weights).sum())(jnp.asarray(VECTORS))
    np.testing.assert_allclose(gradient, weights, rtol=1e-6)


def scrambled(tree):
    noise = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: jnp.asarray(noise.normal(0, 0.5, leaf.shape)), tree)


@pytest.fixture(scope='module', params=['codebook', 'fsq'])
def small(request):
    """(family, networks, every grid of codes (count, 2, 2), its log p(z) and log p(x | z) of all images)."""
    spec = DataSpec('tiny', (2, 2, 1), 2)
    options = {'quantiser': request.param, 'codes': 3, 'latent_channels': 2, 'levels': (3,)}
    network = {'channels': 8, 'multipliers': (1,), 'groups': 2}
    family = families.get('vq_vae')(config.resolve({'family': {'name': 'vq_vae', **options}, 'network': network}), spec)
    networks = Networks(family.networks(nnx.Rngs(0)))
    for name in ('encoder', 'decoder'):
        nnx.update(networks[name], scrambled(nnx.state(networks[name])))
    images = np.array(list(itertools.product(range(2), repeat=4))).reshape(16, 2, 2, 1)
    keys = jax.random.split(jax.random.key(0), 16)
    family.initialise(networks, {'image': images, 'key': keys}, jax.random.key(1))
    quantiser = networks['quantiser']
    for _ in range(3):
        z = family._encode(networks, images, None)
        quantiser.observe(z, quantiser.assign(z))
    codes = np.array(list(itertools.product(range(3), repeat=4)))
    prior = 0.99 * np.asarray(quantiser.shares[...]) + 0.01 / 3
    log_prior = np.log([[prior[place, code] for place, code in enumerate(grid)] for grid in codes]).sum(1)
    logits = np.asarray(networks['decoder'](quantiser.lookup(codes.reshape(-1, 2, 2)), None, None))
    levels = logits.reshape(81, 4, 2) - np.logaddexp.reduce(logits.reshape(81, 4, 2), axis=2, keepdims=True)
    log_p = np.array([[sum(one[d, x] for d, x in enumerate(image.ravel())) for image in images] for one in levels])
    return family, networks, images, codes, log_prior, log_p


def test_the_bound_is_the_term_of_the_encoders_codes_in_the_sum_over_all(small):
    family, networks, images, codes, log_prior, log_p = small
    assert np.exp(log_prior).sum() == pytest.approx(1, abs=1e-5)
    joint = log_prior[:, None] + log_p
    evidence = np.logaddexp.reduce(joint)
    assert np.exp(evidence).sum() == pytest.approx(1, abs=1e-5)
    (likelihood,) = family.likelihoods
    parts = likelihood.log_prob(networks, images, None, jax.random.split(jax.random.key(2), 16))
    found = np.asarray(parts['log_prob'])
    assert likelihood.kind == 'lower_bound' and (found < evidence).all()
    index = networks['quantiser'].assign(family._encode(networks, images, None)).reshape(16, 4)
    terms = [(codes == np.asarray(chosen)).all(1).argmax() for chosen in index]
    np.testing.assert_allclose(found, joint[terms, np.arange(16)], rtol=1e-4)


def test_draws_have_the_probabilities_of_the_sum(small):
    family, networks, images, _, log_prior, log_p = small
    keys = jax.random.split(jax.random.key(4), 20000)
    draws = np.asarray(family.sample(networks, keys, None, Sampler('direct')).images).reshape(-1, 4)
    counts = np.bincount(draws @ [8, 4, 2, 1], minlength=16) / len(draws)
    expected = np.exp(np.logaddexp.reduce(log_prior[:, None] + log_p))
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected.max() / len(draws))
