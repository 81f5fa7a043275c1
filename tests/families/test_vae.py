"""The VAE's bound on probabilistic PCA, whose marginal is known, and its decoders' draws."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import datasets

from genbench import config
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import observations
from genbench.families.base import Networks, Sampler
from genbench.families.vae import VAE
from genbench.networks import decoders
from genbench.training import loop, runs
from genbench.training.prepared import prepare

W = np.array([[1.0, 0.5], [0.5, -1.0], [0.0, 0.8], [0.3, 0.0]])
W[3, 0] = -(W[:3, 0] @ W[:3, 1]) / 1e9  # keep the columns orthogonal: then the posterior's covariance is diagonal
MU, NOISE = np.array([0.2, -0.1, 0.4, 0.0]), 0.6
SPEC = DataSpec('vectors', (1, 1, 4), levels=2)
MARGINAL = stats.multivariate_normal(MU, W @ W.T + NOISE**2 * np.eye(4))


class PPCA(VAE):
    """x = W z + μ + noise in place of the networks; `shift` and `stretch` move the encoder off the posterior."""

    shift, stretch = 0.0, 1.0

    def _encode(self, networks, images, given, key=None):
        precision = (W**2).sum(0) + NOISE**2  # the diagonal of M = WᵀW + σ² I
        mean = (images.reshape(len(images), -1) - MU) @ W / precision
        std = self.stretch * NOISE / np.sqrt(precision)
        return mean + self.shift, jnp.broadcast_to(jnp.log(std), mean.shape)

    def _observed(self, networks, z, images, given, key=None):
        return jax.scipy.stats.norm.logpdf(images.reshape(len(images), -1), z @ W.T + MU, NOISE).sum(-1), {}


@pytest.fixture
def ppca(resolve):
    def make(shift=0.0, stretch=1.0):
        family = PPCA(resolve('vae', latent=2), SPEC)
        family.shift, family.stretch = shift, stretch
        return family

    return make


def vectors(count):
    return jnp.asarray(MARGINAL.rvs(count, random_state=0), jnp.float32).reshape(count, 1, 1, 4)


def bound(family, x, draws, keys):
    return np.asarray(jax.jit(lambda x, keys: family._importance_bound({}, x, None, keys, draws))(x, keys))


def test_the_latent_directions_are_orthogonal():
    assert W[:, 0] @ W[:, 1] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize('draws', [1, 5])
def test_the_bound_is_tight_at_the_exact_posterior(draws, ppca, keys):
    """Every importance weight is then p(x) itself, so not even a single draw has variance."""
    x = vectors(20)
    wanted = MARGINAL.logpdf(np.reshape(x, (20, 4)))
    np.testing.assert_allclose(bound(ppca(), x, draws, keys(20)), wanted, rtol=1e-4, atol=1e-4)


def test_a_worse_encoder_has_a_lower_elbo_by_its_divergence_from_the_posterior(ppca, keys):
    shift, stretch, count = 0.3, 1.3, 20_000
    x = jnp.broadcast_to(vectors(1), (count, 1, 1, 4))
    variance = NOISE**2 / ((W**2).sum(0) + NOISE**2)
    divergence = (shift**2 / variance + stretch**2 - 1 - 2 * np.log(stretch)).sum() / 2
    elbo = bound(ppca(shift, stretch), x, 1, keys(count))
    wanted = MARGINAL.logpdf(np.ravel(x[0])) - divergence
    assert elbo.mean() == pytest.approx(wanted, abs=5 * elbo.std() / np.sqrt(count))


def test_more_draws_bring_the_bound_nearer_to_the_likelihood(ppca, keys):
    x, family = jnp.broadcast_to(vectors(1), (4000, 1, 1, 4)), ppca(0.3, 1.3)
    means = [bound(family, x, draws, keys(4000)).mean() for draws in (1, 4, 16, 64)]
    truth = MARGINAL.logpdf(np.ravel(x[0]))
    assert (np.diff(means) > 0).all()
    assert means[0] < truth - 0.3
    assert means[-1] == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize('beta', [1.0, 4.0])
def test_the_training_loss_is_the_elbo_in_bits_with_its_divergence_weighted(beta, ppca, resolve, keys):
    """E log p(x | z) − β KL; at the posterior and β = 1 its mean is log p(x), though a draw has variance."""
    family, count = PPCA(resolve('vae', latent=2, beta=beta), SPEC), 20_000
    x = jnp.broadcast_to(vectors(1), (count, 1, 1, 4))
    batch = {'image': x, 'label': jnp.zeros(count, int), 'key': keys(count)}
    loss, scalars = jax.jit(lambda batch, key: family.loss({}, batch, key, 0))(batch, jax.random.key(0))
    assert scalars['elbo'] == pytest.approx(SPEC.bits_per_dim(MARGINAL.logpdf(np.ravel(x[0]))), abs=0.01)
    mean, log_std = family._encode({}, x[:1], None)
    kl = ((mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std) / 2).sum() / (4 * np.log(2))
    assert scalars['kl'] == pytest.approx(float(kl), rel=1e-4)
    assert loss == pytest.approx(float(scalars['elbo'] + (beta - 1) * kl), rel=1e-4)


@pytest.mark.parametrize('draws', [1, 4])
@pytest.mark.parametrize(('objective', 'rises'), [('elbo', False), ('iwae', True)])
def test_the_objective_of_importance_weights_is_the_bound_and_that_of_elbos_their_mean(
    objective, rises, draws, ppca, resolve, keys
):
    """Off the posterior the bound of four draws is nearer to log p(x); the mean of four ELBOs is where one is."""
    family, count = PPCA(resolve('vae', latent=2, objective=objective, draws=draws), SPEC), 20_000
    family.shift, family.stretch = 0.3, 1.3
    x = jnp.broadcast_to(vectors(1), (count, 1, 1, 4))
    batch = {'image': x, 'label': jnp.zeros(count, int), 'key': keys(count)}
    loss, scalars = jax.jit(lambda batch, key: family.loss({}, batch, key, 0))(batch, jax.random.key(0))
    scored = bound(ppca(0.3, 1.3), x, draws if rises else 1, keys(count))
    assert loss == pytest.approx(
        SPEC.bits_per_dim(scored.mean()), abs=float(5 * SPEC.bits_per_dim(-scored.std() / 141))
    )
    assert scalars['elbo'] == pytest.approx(
        SPEC.bits_per_dim(bound(ppca(0.3, 1.3), x, 1, keys(count)).mean()), abs=0.02
    )


class Moving(PPCA):
    """The model above with μ as a parameter of its decoder."""

    def _observed(self, networks, z, images, given, key=None):
        mean = z @ W.T + networks['mu']
        return jax.scipy.stats.norm.logpdf(images.reshape(len(images), -1), mean, NOISE).sum(-1), {}


@pytest.mark.parametrize('moved', [False, True])
def test_the_gradient_of_importance_weights(moved, resolve, keys):
    """At the exact posterior that of log N(x; μ, WWᵀ + σ²I); off it that of the loss by finite differences."""
    family, count = Moving(resolve('vae', latent=2, objective='iwae', draws=3), SPEC), 20_000
    family.shift, family.stretch = (0.3, 1.3) if moved else (0.0, 1.0)
    x = vectors(1)
    batch = {'image': jnp.broadcast_to(x, (count, 1, 1, 4)), 'label': jnp.zeros(count, int), 'key': keys(count)}
    loss = jax.jit(jax.value_and_grad(lambda mu: family.loss({'mu': mu}, batch, jax.random.key(0), 0)[0]))
    mu = jnp.asarray(MU, jnp.float32)
    value, found = loss(mu)
    if moved:
        wanted = [(loss(mu.at[d].add(0.05))[0] - loss(mu.at[d].add(-0.05))[0]) / 0.1 for d in range(4)]
    else:
        wanted = SPEC.bits_per_dim(np.linalg.solve(MARGINAL.cov, np.reshape(x, 4) - MU))
        assert value == pytest.approx(SPEC.bits_per_dim(MARGINAL.logpdf(np.reshape(x, 4))), abs=1e-3)
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_an_objective_that_does_not_read_beta_is_refused_with_one(resolve):
    with pytest.raises(UserError, match='objective=iwae ignores'):
        VAE(resolve('vae', objective='iwae', beta=4.0), SPEC)


def test_binary_images_are_drawn_anew_with_the_pixels_as_probabilities_and_scored_as_bernoulli(keys):
    """Oracle: every x of two pixels, whose probabilities add up to one."""
    model = observations.make('bernoulli', DataSpec('pixels', (1, 1, 2), levels=256), 0.0)
    images = jnp.broadcast_to(jnp.array([51, 255]), (20_000, 1, 1, 2))
    drawn = np.asarray(model.observe(images, keys(20_000)))
    assert set(np.unique(drawn)) == {0, 255} and drawn[..., 1].min() == 255
    assert (drawn[..., 0] > 0).mean() == pytest.approx(51 / 255, abs=5 * 0.4 / 141)
    np.testing.assert_array_equal(model.seen(images, drawn), drawn)
    h = jnp.broadcast_to(jnp.array([0.7, -1.2])[:, None], (4, 1, 1, 2, 1))
    every = jnp.array([[0, 0], [0, 255], [255, 0], [255, 255]]).reshape(4, 1, 1, 2)
    on = stats.logistic.cdf([0.7, -1.2])
    wanted = [np.prod(np.where(x, on, 1 - on)) for x in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    np.testing.assert_allclose(np.exp(model.log_prob(h, every)), wanted, rtol=1e-5)


def test_grey_images_score_the_mean_over_their_binary_draws_and_a_threshold_has_one(keys):
    """Oracle: every binary image of two pixels with its probability."""
    spec = DataSpec('pixels', (1, 1, 2), levels=256)
    grey, drawn, halved = (observations.make(f'{name}bernoulli', spec, 0.0) for name in ('grey_', '', 'threshold_'))
    image, h = jnp.array([51, 204]).reshape(1, 1, 1, 2), jnp.array([0.7, -1.2]).reshape(1, 1, 1, 2, 1)
    wanted = 0.0
    for x in itertools.product((0, 1), repeat=2):
        probability = np.prod(np.where(x, [0.2, 0.8], [0.8, 0.2]))
        wanted += probability * float(drawn.log_prob(h, 255 * jnp.array(x).reshape(1, 1, 1, 2))[0])
    observed = grey.observe(image, keys(1))
    assert float(grey.log_prob(h, observed)[0]) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(grey.encode(grey.seen(image, observed)), [[[[0.2, 0.8]]]], rtol=1e-6)
    np.testing.assert_array_equal(halved.observe(jnp.array([0, 127, 128, 255]), None), [0, 0, 255, 255])
    odd = observations.make('threshold_bernoulli', DataSpec('digits', (1, 1, 2), levels=17), 0.0)
    np.testing.assert_array_equal(odd.observe(jnp.array([7, 8, 9]), None), [0, 16, 16])  # 8 / 16 is one half
    family = VAE(config.resolve({'family': {'name': 'vae', 'decoder': 'grey_bernoulli'}}), spec)
    assert family.latent_model(Networks({}), None) is None  # annealing would take the mean for a probability
    assert (grey.protocol['binarisation'], halved.protocol['binarisation']) == ('mean over draws', 'at half')


def test_a_bound_of_many_draws_needs_no_more_memory_than_one_of_few(ppca, keys):
    x, family = vectors(64), ppca(0.3, 1.3)

    def temporaries(draws):
        program = jax.jit(lambda x, keys: family._importance_bound({}, x, None, keys, draws))
        return program.lower(x, keys(64)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(5000) <= temporaries(5) + 1024


FINE = DataSpec('vectors', (1, 1, 4), levels=4096)  # whose bins are narrower than the noise of the model below


def test_a_normal_decoder_bounds_its_marginal_and_reaches_it_at_the_exact_posterior(resolve, keys):
    """A linear decoder of dequantised images: log N(x; μ, WWᵀ + σ²I) and the widths of the bins."""
    weights, mean, scale = 0.2 * W, 0.5 * MU, 0.1
    marginal = stats.multivariate_normal(mean, weights @ weights.T + scale**2 * np.eye(4))
    precision = (weights**2).sum(0) + scale**2

    def encoder(x, given, key):
        posterior = (x.reshape(-1, 4) - mean) @ weights / precision
        return jnp.concatenate([posterior, jnp.full_like(posterior, np.log(scale)) - np.log(precision) / 2], axis=-1)

    networks = {'encoder': encoder, 'decoder': lambda z, given, key: (z @ weights.T + mean).reshape(-1, 1, 1, 4)}
    family = VAE(resolve('vae', latent=2, decoder='normal', observation_scale=scale), FINE)
    images = FINE.quantise(jnp.asarray(marginal.rvs(50, random_state=0)).reshape(-1, 1, 1, 4))
    wanted = marginal.logpdf(np.reshape(FINE.dequantise(images), (-1, 4))) + 4 * np.log(2 / 4096)
    for likelihood in family.likelihoods:
        assert (likelihood.protocol['dequantisation'], likelihood.protocol['dequantisation_draws']) == ('uniform', 1)
        found = jax.jit(lambda keys, one=likelihood: one.log_prob(networks, images, None, keys))(keys(50))
        np.testing.assert_allclose(found, wanted, atol=0.05)


@pytest.mark.parametrize('scale', [0.0, 0.3])
def test_the_density_of_a_normal_decoder_times_the_bins_adds_up_to_the_mass_between_them(scale, keys):
    """An error of the bins' width would be a factor; a density at one place of each bin, no integral."""
    spec, h = DataSpec('pixels', (1, 1, 1), levels=5), jnp.array([0.3, 0.8] if not scale else [0.3])
    model = observations.make('normal', spec, scale)
    assert model.outputs == len(h)
    images = jnp.repeat(jnp.arange(5), 20_000).reshape(-1, 1, 1, 1)
    log_p = model.log_prob(
        jnp.broadcast_to(h, (len(images), 1, 1, 1, len(h))), model.observe(images, keys(len(images)))
    )
    wanted = np.diff(stats.norm(0.3, scale or np.exp(0.8 - 2)).cdf([-1, 1]))
    assert np.exp(log_p).reshape(5, -1).mean(1).sum() == pytest.approx(wanted[0], rel=0.01)


def test_the_likelihoods_are_lower_bounds_with_one_and_many_draws(built):
    family = built('vae')[0]
    assert [(one.method, one.kind) for one in family.likelihoods] == [
        ('elbo', 'lower_bound'),
        ('iwae_64', 'lower_bound'),
    ]


LOGITS = 2 * jnp.linspace(-1, 1, 10).reshape(2, 5) ** 2  # of two pixels with five levels
LOGISTIC = jnp.array([[0.5, 1.5], [-0.9, 1.0]])  # mean, and the log-scale plus 2; also of the normal
DECODERS = {
    'categorical': (LOGITS, jax.nn.log_softmax(LOGITS)),
    'logistic': (LOGISTIC, decoders.discretised_logistic(LOGISTIC[:, :1], LOGISTIC[:, 1:] - 2, jnp.arange(5), 5)),
    'normal': (
        LOGISTIC,
        decoders.discretised_normal(LOGISTIC[:, :1], jnp.exp(LOGISTIC[:, 1:] - 2), jnp.arange(5), 5),
    ),
}


@pytest.fixture
def drawn(resolve, keys):
    """`drawn(decoder, sampler)` → many draws (count, 2) of a decoder that puts the above out whatever z is."""

    def draw(decoder, sampler):
        family, (h, _) = (
            VAE(resolve('vae', decoder=decoder), DataSpec('pixels', (1, 1, 2), levels=5)),
            DECODERS[decoder],
        )
        networks = {'decoder': lambda z, given, key: jnp.broadcast_to(h.ravel(), (len(z), 1, 1, h.size))}
        sample = jax.jit(lambda keys: family.sample(networks, keys, None, Sampler(sampler)).images)
        return np.reshape(sample(keys(20_000)), (-1, 2))

    return draw


@pytest.mark.parametrize('decoder', DECODERS)
def test_draws_have_the_probabilities_of_the_observation_model(decoder, drawn):
    images = drawn(decoder, 'direct')
    shares = [np.bincount(pixel, minlength=5) / len(images) for pixel in images.T]
    np.testing.assert_allclose(shares, np.exp(DECODERS[decoder][1]), atol=5 * 0.5 / np.sqrt(20_000))


def test_the_mean_sampler_shows_the_level_nearest_to_the_expected_one(drawn):
    expected = np.exp(DECODERS['categorical'][1]) @ np.arange(5)
    np.testing.assert_array_equal(drawn('categorical', 'mean'), np.tile(np.round(expected), (20_000, 1)))


def test_the_mean_sampler_shows_the_level_nearest_to_the_mean_of_a_logistic(drawn):
    """0.5 and −0.9 among levels at −1, −½, 0, ½ and 1."""
    np.testing.assert_array_equal(drawn('logistic', 'mean'), np.tile([3, 0], (20_000, 1)))


def test_the_mean_of_a_mixture_weighs_its_components_and_follows_the_channel_before():
    """Two components with weights ¼ and ¾: red −1 and 1, green 0 and 1 − 0.9 red; the means are 0.5 and 0.075."""
    model = observations.make('logistic_mixture', DataSpec('pixels', (1, 1, 2), levels=5), 0.0, 2)
    h = jnp.array([[0, np.log(3)], [-1, 1], [0, 1], [-2, -2], [-2, -2], [0, np.arctanh(-0.9)]])
    np.testing.assert_array_equal(model.mean(model.arrange(h[None]))[0, 0, 0], [3, 2])


def test_the_mean_sampler_shows_the_bin_of_the_mean_of_a_normal(drawn):
    """0.5 and −0.9 among bins of width 2 / 5 from −1."""
    np.testing.assert_array_equal(drawn('normal', 'mean'), np.tile([3, 0], (20_000, 1)))


@pytest.mark.parametrize(
    ('option', 'value', 'why'),
    [('decoder', 'norml', "'norml'.*Did you mean normal"), ('observation_scale', -0.1, 'at least 0')],
)
def test_options_that_do_not_exist_are_refused(option, value, why, make_family):
    with pytest.raises(UserError, match=why):
        make_family('vae', **{option: value})


@pytest.mark.parametrize('decoder', ['normal', 'laplace'])
def test_a_scale_that_is_narrower_than_the_bins_is_refused(decoder, make_family):
    with pytest.raises(UserError, match='family.observation_scale is 1e-20, but levels of .* use at least .* to learn'):
        make_family('vae', decoder=decoder, observation_scale=1e-20)


def test_scales_and_posteriors_at_their_limits_are_reported_as_stopping_a_run(resolve, keys):
    """One of four pixels has a log-scale of −20, two of three dimensions of z a log standard deviation of −8."""
    spec = DataSpec('vectors', (1, 1, 4), levels=256)
    family = VAE(resolve('vae', latent=3, decoder='normal'), spec)
    outputs = jnp.array([[0, -20], [0, 0], [0, 1], [0, -4.0]])
    networks = {
        'encoder': lambda x, given, key: jnp.tile(jnp.array([0, 0, 0, -8, 0, -8.0]), (len(x), 1)),
        'decoder': lambda z, given, key: jnp.tile(outputs, (len(z), 1, 1, 1, 1)),
    }
    batch = {'image': jnp.zeros((6, 1, 1, 4), jnp.int32), 'key': keys(6)}
    _, told = family.loss(networks, batch, jax.random.key(0), 0)
    assert {name: pytest.approx(float(told[name])) for name in family.stops} == {
        'scales_at_limit': 1 / 4,
        'posteriors_at_limit': 2 / 3,
    }
    fixed = VAE(resolve('vae', latent=3, decoder='normal', observation_scale=0.1, beta=0.5), spec)
    networks['decoder'] = lambda z, given, key: jnp.zeros((len(z), 1, 1, 4, 1))
    assert {*fixed.loss(networks, batch, jax.random.key(0), 0)[1]}.isdisjoint(family.stops)
    for free in ({'kl_warmup': 5}, {'free_nats': 0.1}):
        warming = VAE(resolve('vae', latent=3, decoder='normal', observation_scale=0.1, **free), spec)
        assert {*warming.loss(networks, batch, jax.random.key(0), jnp.array(0))[1]}.isdisjoint(family.stops)


@pytest.mark.parametrize(('levels', 'watched'), [(17, True), (256, True), (4096, False)])
def test_scales_are_watched_only_where_a_constant_pixel_stays_off_their_limit(levels, watched):
    """The best scale for a constant pixel is its bin's standard deviation."""
    spec = DataSpec('images', (2, 2, 1), levels)
    told = observations.make('normal', spec, 0.0).monitors(jnp.zeros((1, 2, 2, 1, 2)))
    assert ('scales_at_limit' in told) == watched == (2 / levels / 12**0.5 > np.exp(-7))


@pytest.mark.parametrize('decoder', ['logistic', 'normal'])
def test_binary_images_need_a_decoder_of_binary_pixels(decoder, resolve):
    with pytest.raises(UserError, match=f'vectors is binary, and family.decoder={decoder} is for grey values; use fam'):
        VAE(resolve('vae', decoder=decoder), SPEC)


@pytest.mark.parametrize('resident_bytes', [2**30, 0], ids=['resident', 'streamed'])
@pytest.mark.parametrize('count', [1000, 5000])
def test_a_decoder_starts_at_the_mean_image_of_as_many_training_images_as_asked(count, resident_bytes):
    """Oracle: the mean of the data set as scikit-learn has it, of all 1,437 training images or of some of them."""
    overrides = (
        'network.name=mlp', 'network.hidden=(8,)', 'family.latent=2', 'family.decoder=bernoulli',
        'family.mean_image=True', f'train.initial_images={count}', f'data.resident_bytes={resident_bytes}',
    )  # fmt: skip
    settings = config.resolve({'data': {'name': 'digits'}, 'family': {'name': 'vae'}}, overrides)
    training = loop.Training(prepare(settings), runs.Folder(pathlib.Path()))
    bias = training.enter('main', 0, None)['params']['decoder']['layers'][1]['bias'][...].reshape(8, 8)
    images = datasets.load_digits().images[:1437] / 16
    wanted, spread = images.mean(0), images.std(0) / np.sqrt(count)
    found = jax.nn.sigmoid(bias)
    if count > len(images):
        np.testing.assert_allclose(found, np.clip(wanted, 0.001, 0.999), rtol=1e-4)
    else:
        assert (np.abs(found - np.clip(wanted, 0.001, 0.999)) < 4 * spread + 1e-3).all()
        assert np.abs(found - wanted).max() > 1e-3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('network.name=autoencoder', r'is for network\.name=mlp and a decoder'),
        ('family.decoder=threshold_bernoulli', r'is for network\.name=mlp and a decoder'),
        ('train.initial_images=0', r'starts at the mean of train\.initial_images, which is 0'),
    ],
)
def test_a_mean_image_is_refused_where_the_decoder_cannot_start_there(change, message):
    overrides = (
        'network.name=mlp', 'family.decoder=bernoulli', 'family.mean_image=True', 'train.initial_images=50', change
    )  # fmt: skip
    with pytest.raises(UserError, match=rf'family\.mean_image {message}'):
        prepare(config.resolve({'data': {'name': 'digits'}, 'family': {'name': 'vae'}}, overrides))
