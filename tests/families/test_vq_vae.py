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
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.networks.quantisers import Codebook, Scalars
from genbench.training.prepared import prepare

pytestmark = pytest.mark.unoptimized
VECTORS = np.random.default_rng(0).normal(size=(50, 2, 2, 3)).astype(np.float32)


def codebook(decay, size=6):
    made = Codebook(positions=4, size=size, channels=3, decay=decay, least=0.03 / size)
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
    np.testing.assert_allclose(made.position_shares[...], counts / 50, atol=1e-5)


def test_fresh_codes_are_different_vectors_of_the_batch():
    codes = np.asarray(codebook(decay=0.9, size=150).codes)
    places = np.abs(codes[:, None] - VECTORS.reshape(1, -1, 3)).max(-1)
    assert (places.min(1) < 1e-5).all() and len(set(places.argmin(1))) == 150


def test_dead_codes_move_to_vectors_of_the_batch_and_others_stay():
    made = codebook(decay=0.0)
    made.total[...] = made.total[...].at[2].set(100.0)  # far from all
    before = moved(made, 1)
    made.revive(VECTORS, key=jax.random.key(1))
    after = np.asarray(made.codes)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(after[others], before[others], rtol=1e-6)
    assert np.isclose(VECTORS.reshape(-1, 3), after[2], atol=1e-5).all(1).any()


@pytest.mark.parametrize('levels', [(3,), (4, 3), (8, 5, 5)])
def test_scalars_round_the_squashed_numbers_to_a_grid_whose_codes_have_an_index_each(levels):
    made = Scalars(positions=1, levels=levels, decay=0.9)
    axes = [(np.arange(n) - n // 2) / (n // 2) for n in levels]
    grid = np.array([point[::-1] for point in itertools.product(*axes[::-1])])  # the first channel changes fastest
    np.testing.assert_allclose(made.lookup(jnp.arange(len(grid))), grid, atol=1e-6)
    z = np.random.default_rng(1).normal(0, 2, size=(20000, len(levels)))
    squashed = np.asarray(made.squash(z))
    found = np.asarray(made.assign(squashed))
    distance = np.abs(np.asarray(made.lookup(found)) - squashed) * [n // 2 for n in levels]
    assert set(found.tolist()) == set(range(len(grid))) and distance.max() < 0.501
    zero = made.lookup(made.assign(made.squash(np.zeros((1, len(levels))))))
    np.testing.assert_array_equal(zero, np.zeros((1, len(levels))))
    assert (np.diff(np.asarray(made.squash(np.linspace(-5, 5, 99)[:, None] * np.ones(len(levels)))), axis=0) > 0).all()


def test_three_levels_are_the_rounded_hyperbolic_tangent_with_its_gradient():
    made = Scalars(positions=1, levels=(3,), decay=0.9)
    z = jnp.linspace(-2, 2, 41)[:, None]
    (index, code) = made.quantise(made.squash(z))
    gradient = jax.grad(lambda z: made.quantise(made.squash(z))[1].sum())(z)
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
    options = {'quantiser': request.param, 'codes': 3, 'latent_channels': 2, 'levels': (3,), 'codebook_decay': 0.1}
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
    prior = 0.99 * np.asarray(quantiser.position_shares[...]) + 0.01 / 3
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
    assert likelihood.kind == 'lower_bound'
    index = networks['quantiser'].assign(family._encode(networks, images, None)).reshape(16, 4)
    terms = [(codes == np.asarray(chosen)).all(1).argmax() for chosen in index]
    np.testing.assert_allclose(found, joint[terms, np.arange(16)], rtol=1e-4)


def test_draws_have_the_probabilities_of_the_sum(small):
    family, networks, _, codes, log_prior, log_p = small
    keys = jax.random.split(jax.random.key(4), 20000)
    draws = np.asarray(family.sample(networks, keys, None, Sampler('direct')).images).reshape(-1, 4)
    counts = np.bincount(draws @ [8, 4, 2, 1], minlength=16) / len(draws)
    expected = np.exp(np.logaddexp.reduce(log_prior[:, None] + log_p))
    uniform = np.exp(np.logaddexp.reduce(log_p)) / len(codes)
    error = 4 * np.sqrt(expected * (1 - expected) / len(draws))
    assert (np.abs(counts - expected) < error).all() and (np.abs(uniform - expected) > error).any()


def test_the_loss_is_the_bound_without_its_prior_and_the_distance_from_the_codes(small):
    family, networks, images, *_ = small
    networks = Networks({name: nnx.clone(networks[name]) for name in networks})
    quantiser, batch = networks['quantiser'], {'image': images, 'key': jax.random.split(jax.random.key(2), 16)}
    (likelihood,) = family.likelihoods
    parts = likelihood.log_prob(networks, images, None, batch['key'])
    z = np.asarray(family._encode(networks, images, None))
    index = np.asarray(quantiser.assign(z)).reshape(16, 4)
    away = np.square(z - np.asarray(quantiser.lookup(index.reshape(16, 2, 2)))).sum(-1).mean()
    shares = np.asarray(quantiser.position_shares[...])
    loss, scalars = family.loss(networks, batch, jax.random.key(0), 0)
    learned = family.config.family.quantiser == 'codebook'
    nats = -np.asarray(parts['observation']).mean() + 0.25 * away * learned
    assert float(loss) == pytest.approx(nats / (4 * np.log(2)), rel=1e-4)
    assert float(scalars['elbo']) == pytest.approx(-np.asarray(parts['log_prob']).mean() / (4 * np.log(2)), rel=1e-4)
    counts = np.stack([np.bincount(index[:, place], minlength=3) for place in range(4)]) / 16
    np.testing.assert_allclose(quantiser.position_shares[...], 0.1 * shares + 0.9 * counts, atol=1e-5)


def test_it_lends_latents_that_its_decoder_rounds(small):
    family, networks, images, *_ = small
    mean, log_variance = family.posterior(networks, images)
    quantiser = networks['quantiser']
    assert mean.shape == (16, *family.code_shape) and log_variance is None and family.observed is None
    moved = mean + 1e-4
    rounded = quantiser.lookup(quantiser.assign(moved))
    np.testing.assert_array_equal(family.decode(networks, moved), family.decode(networks, rounded))


def test_micro_batches_are_for_codes_that_are_never_revived(make_family):
    def splits(**options):
        return make_family('vq_vae', **options).updates[0].splits

    assert not splits() and splits(revive=0.0) and splits(quantiser='fsq')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'codes': 60_000}, 'a batch has 2,048 vectors'),
        ({'quantiser': 'fsq', 'levels': (256,) * 3}, '16,777,216 codes'),
    ],
)
def test_too_many_codes_are_refused(make_family, options, words):
    with pytest.raises(UserError, match=words):
        make_family('vq_vae', **options)


def test_more_codes_of_a_grid_than_the_training_images_have_vectors_are_refused(tiny):
    """1,437 digits of 8×8 pixels, which the encoder halves once."""
    fsq = ('network.multipliers=(1,1)', 'family.quantiser=fsq')
    with pytest.raises(UserError, match='levels make 32,768 codes, but the training images have 22,992 vectors'):
        prepare(tiny('vq_vae', *fsq, 'family.levels=(32,32,32)'))
    prepare(tiny('vq_vae', *fsq, 'family.levels=(28,28,28)'))
