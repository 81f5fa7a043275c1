"""The very deep VAE: linear Gaussian layers, whose marginal is known, and all images of a space that can be listed."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, stats

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.networks import top_down

pytestmark = pytest.mark.unoptimized

# z_1 ~ N(0, 1), z_2 ~ N(SLOPE z_1, SPREAD²), x ~ N(z_1 + z_2, NOISE²) in one pixel
SLOPE, SPREAD, NOISE, X = 0.7, 0.5, 0.6, 0.9
JOINT = np.array([[1, SLOPE], [SLOPE, SLOPE**2 + SPREAD**2]])  # covariance of (z_1, z_2)
SUM = np.ones(2)
MARGINAL = stats.norm(0, np.sqrt(SUM @ JOINT @ SUM + NOISE**2))
POSTERIOR = JOINT - np.outer(JOINT @ SUM, JOINT @ SUM) / MARGINAL.var()
MEAN = JOINT @ SUM * X / MARGINAL.var()
NEXT = POSTERIOR[0, 1] / POSTERIOR[0, 0]  # of the mean of z_2 by z_1, given x
LATER = np.sqrt(POSTERIOR[1, 1] - NEXT * POSTERIOR[0, 1])


class Density:
    """log N(x; h, NOISE²) in place of the distribution of an image."""

    protocol = {}
    observe = staticmethod(lambda images, keys: images)
    seen = staticmethod(lambda images, x: images)
    encode = staticmethod(lambda images: images)
    arrange = staticmethod(lambda h: h)
    log_prob = staticmethod(lambda h, x: jax.scipy.stats.norm.logpdf(x, h, NOISE).sum((1, 2, 3)))
    monitors = staticmethod(lambda h: {})


def linear(shift=0.0, stretch=1.0):
    """Networks with the exact posterior, or with its means and standard deviations moved."""

    def joined(mean, std):
        mean = jnp.asarray(mean, jnp.float32)
        return jnp.stack([mean, jnp.broadcast_to(jnp.log(std), mean.shape)], axis=-1)

    def decoder(noise, features, given):
        first = noise(0, (1, 1, 1))
        flat = jnp.zeros(first.shape[:-1])
        posterior = joined(flat + MEAN[0] + shift, stretch * np.sqrt(POSTERIOR[0, 0]))
        one = top_down.draw(joined(flat, 1.0), posterior, first)
        z = one.z[..., 0]
        posterior = joined(MEAN[1] + NEXT * (z - MEAN[0]) + shift, stretch * LATER)
        two = top_down.draw(joined(SLOPE * z, SPREAD), posterior, noise(1, (1, 1, 1)))
        return one.z + two.z, [one, two]

    return {'encoder': lambda x, given: {}, 'decoder': decoder}


@pytest.fixture
def hierarchy(resolve):
    family = families.get('vdvae')(resolve('vdvae', decoder='categorical'), DataSpec('numbers', (1, 1, 1), levels=2))
    family.observation = Density()
    return family


def bounds(family, networks, draws, keys):
    x = jnp.full((len(keys), 1, 1, 1), X)
    return np.asarray(jax.jit(lambda keys: family._importance_bound(networks, x, None, keys, draws))(keys))


@pytest.mark.parametrize('draws', [1, 3])
def test_with_the_exact_posterior_every_draw_gives_the_exact_likelihood(draws, hierarchy, keys):
    np.testing.assert_allclose(bounds(hierarchy, linear(), draws, keys(50)), MARGINAL.logpdf(X), rtol=1e-5)


def test_the_loss_is_the_likelihood_less_the_divergence_from_the_posterior(hierarchy, keys):
    """Of both layers in closed form; the second is shifted by what the first is, through the slope of its mean."""
    shift, stretch, count = 0.3, 1.4, 40_000
    batch = {'image': jnp.full((count, 1, 1, 1), X), 'key': keys(count)}
    loss, scalars = jax.jit(lambda batch: hierarchy.loss(linear(shift, stretch), batch, jax.random.key(0), 0))(batch)
    each = [(shift**2 / variance + stretch**2 - 1) / 2 - np.log(stretch) for variance in (POSTERIOR[0, 0], LATER**2)]
    assert loss == pytest.approx((sum(each) - MARGINAL.logpdf(X)) / np.log(2), abs=0.02)
    assert scalars['kl'] == pytest.approx(float(scalars['kl_0'] + scalars['kl_1']), rel=1e-5)


def test_the_divergence_and_the_ratio_of_a_layer_are_those_of_their_densities():
    q, p, noise = stats.norm(0.4, 0.7), stats.norm(-0.2, 1.3), np.linspace(-2, 2, 5)
    joined = lambda d: jnp.broadcast_to(jnp.array([d.mean(), np.log(d.std())]), (5, 2))  # noqa: E731
    found = top_down.draw(joined(p), joined(q), jnp.asarray(noise)[:, None])
    wanted, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), -8, 8)
    np.testing.assert_allclose(found.divergence[:, 0], wanted, rtol=1e-5)
    z = q.mean() + q.std() * noise
    np.testing.assert_allclose(found.z[:, 0], z, rtol=1e-5)
    np.testing.assert_allclose(found.log_ratio, p.logpdf(z) - q.logpdf(z), rtol=1e-4)
    np.testing.assert_allclose(found.place[:, 0], 0.6 / 1.3, rtol=1e-5)


def test_bounds_of_many_draws_are_those_of_brute_force(hierarchy, keys):
    """E log (1/K) Σ w_k by numpy and scipy alone, for a posterior that is off."""
    shift, stretch, draws, count = 0.4, 1.2, 5, 20_000
    noise = np.random.default_rng(0).normal(size=(2, count, draws))
    one, two = stats.norm(MEAN[0] + shift, stretch * np.sqrt(POSTERIOR[0, 0])), stretch * LATER
    first = one.mean() + one.std() * noise[0]
    mean = MEAN[1] + NEXT * (first - MEAN[0]) + shift
    second = mean + two * noise[1]
    log_p = stats.norm.logpdf(first) + stats.norm.logpdf(second, SLOPE * first, SPREAD)
    log_w = log_p + stats.norm.logpdf(X, first + second, NOISE)
    log_w -= one.logpdf(first) + stats.norm.logpdf(second, mean, two)
    wanted = np.log(np.exp(log_w).mean(1))
    found = bounds(hierarchy, linear(shift, stretch), draws, keys(count))
    error = np.sqrt((wanted.var() + found.var()) / count)
    assert found.mean() == pytest.approx(wanted.mean(), abs=5 * error)
    assert wanted.mean() < MARGINAL.logpdf(X) - 10 * error


SPEC = DataSpec('tiny', (2, 2, 1), levels=2, classes=2)
EVERY = jnp.array(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2, 1)


@functools.cache
def tiny():
    """(family, networks with random parameters) for all binary images of 2×2, with labels."""
    network = {'name': 'top_down', 'width': 8, 'latent_channels': 2, 'encoder': '2x1,2d2,1x1', 'decoder': '1x1,2m1'}
    options = {'name': 'vdvae', 'decoder': 'bernoulli', 'conditional': True}
    family = families.get('vdvae')(config.resolve({'family': options, 'network': network}), SPEC)
    networks = family.networks(nnx.Rngs(0))
    for seed, module in enumerate(networks.values()):
        graph, state = nnx.split(module)
        rng = np.random.default_rng(seed)
        state = jax.tree.map(lambda leaf, rng=rng: jnp.asarray(0.35 * rng.normal(size=leaf.shape), jnp.float32), state)
        nnx.update(module, state)
    return family, Networks(networks)


def test_probabilities_of_all_images_sum_to_one_and_are_those_of_samples(keys):
    family, networks = tiny()
    given, draws = {'label': jnp.ones(16, int)}, 2000
    bound = jax.jit(lambda keys: family._importance_bound(networks, EVERY, given, keys, draws))
    p = np.exp(np.mean([bound(keys(16, seed)) for seed in range(4)], axis=0))
    assert p.sum() == pytest.approx(1, abs=0.02)
    count = 20_000
    sample = jax.jit(lambda keys, given: family.sample(networks, keys, given, Sampler('direct')).images)
    drawn = np.asarray(sample(keys(count), {'label': jnp.ones(count, int)})).reshape(count, 4) @ [8, 4, 2, 1]
    shares = np.bincount(drawn, minlength=16) / count
    np.testing.assert_allclose(shares, p, atol=0.01)
    assert np.abs(p - 1 / 16).max() > 0.03


def test_latents_are_the_noise_of_all_layers_and_the_temperature_scales_them(keys):
    family, networks = tiny()
    assert family.latent_shape == (2 * (1 + 4),)
    given = {'label': jnp.zeros(3, int)}
    cold = Sampler('direct', options=family.sampler_options('direct')(temperature=0.0))
    assert not np.asarray(family.latents(keys(3), cold)).any()
    draw = lambda latents, keys: family.generate(networks, latents, keys, given, Sampler('mean'))  # noqa: E731
    still = jax.jit(draw)(jnp.zeros((3, 10)), keys(3))
    drawn = jax.jit(lambda keys: family.sample(networks, keys, given, Sampler('mean', options=cold.options)).images)(
        keys(3)
    )
    np.testing.assert_array_equal(still, drawn)


def block(inputs, middle, outputs, window):
    """The numbers in the four convolutions of a block, with biases."""
    inner = 2 * (window**2 * middle**2 + middle)
    return (inputs + 1) * middle + inner + (middle + 1) * outputs


def parameters(network):
    """Counted by hand from the modules of the official code, for 32×32 in colour and mixtures of ten."""
    w, z = network['width'], network['latent_channels']
    m = int(w * 0.25)
    window = lambda part: 3 if int(re.match(r'\d+', part)[0]) > 2 else 1  # noqa: E731
    repeats = lambda part: int(part.split('x')[1]) if 'x' in part else 1  # noqa: E731
    layer = lambda k: (  # noqa: E731
        block(2 * w, m, 2 * z, k) + block(w, m, 2 * z + w, k) + (z + 1) * w + block(w, m, w, k)
    )
    encoder = (9 * 3 + 1) * w
    encoder += sum(repeats(one) * block(w, m, w, window(one)) for one in network['encoder'].split(','))
    decoder = sum(repeats(one) * layer(window(one)) for one in network['decoder'].split(','))
    return encoder + decoder + w * sum(size**2 for size in (1, 4, 8, 16, 32)) + 2 * w + (w + 1) * 100


def count(family):
    shapes = jax.eval_shape(lambda: [nnx.state(one, nnx.Param) for one in family.networks(nnx.Rngs(0)).values()])
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def preset(*overrides):
    loaded = config.load('configs/cifar10/vdvae.py', overrides)
    return families.get('vdvae')(loaded, DataSpec('cifar10', (32, 32, 3), 256))


def test_the_preset_of_cifar10_has_the_layers_and_parameters_of_the_official_code():
    """The hand's count is 39.1M for the preset; it is the networks' own for one with fewer blocks."""
    family = preset()
    assert len(family._shapes) == 43 and parameters(family.config.network) == 39_145_700
    few = {'encoder': '32x1,32d2,16d2,8d2,4d4,1x2', 'decoder': '1x1,4m1,8m4,16m8,32m16'}
    shallow = preset(*(f'network.{key}={value}' for key, value in few.items()))
    assert count(shallow) == parameters(shallow.config.network)


def test_default_blocks_fit_images_that_do_not_halve_for_long():
    assert top_down.resolutions(28) == [28, 14, 7, 1]
    assert [f'{a}{b}{c}' for a, b, c in top_down.encoder_blocks('', 8, 1)] == ['8x1', '8d2', '4x1', '4d4', '1x1']
    assert [f'{a}{b}{c}' for a, b, c in top_down.decoder_layers('', 8, 2)] == ['1x1', '1x1', '4m1', '4x1', '8m4', '8x1']


@pytest.mark.parametrize(
    ('option', 'text', 'why'),
    [
        ('encoder', '4x1,4d3,1x1', 'does not follow features at 4'),
        ('encoder', '8x1,8d2', 'a block at 8 does not follow features at 4; the images are 4×4'),
        ('encoder', '4y2', "'4y2' is no block"),
        ('decoder', '1x1,4m2', '4m2 needs a layer at 2 before it'),
        ('decoder', '1x1', 'which ends at 1; the images are 4×4'),
        ('decoder', '2x1,4m2', 'layers at 2, where the encoder has no features'),
    ],
)
def test_blocks_that_do_not_fit_the_images_are_refused(option, text, why):
    network = {'name': 'top_down', 'width': 8, option: text}
    resolved = config.resolve({'family': {'name': 'vdvae'}, 'network': network})
    with pytest.raises(UserError, match=why):
        families.get('vdvae')(resolved, DataSpec('tiny', (4, 4, 1), 5)).networks(nnx.Rngs(0))


def test_a_network_without_layers_of_latents_is_refused():
    resolved = config.resolve({'family': {'name': 'vdvae'}, 'network': {'name': 'autoencoder'}})
    with pytest.raises(UserError, match='no layers of latents; use top_down'):
        families.get('vdvae')(resolved, DataSpec('tiny', (4, 4, 1), 5)).networks(nnx.Rngs(0))
