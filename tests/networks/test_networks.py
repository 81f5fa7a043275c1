"""Networks: sizes, conditions, dropout and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import config, networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import autoencoder, layers, resnet, unet
from genbench.networks.classifier import Classifier
from genbench.networks.moments import Moments
from genbench.networks.residual import ResidualBlock

TINY = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1}
TEN = {'label': Form('classes', (), 10)}
DDPM = {'channels': 128, 'multipliers': (1, 2, 2, 2), 'blocks': 2, 'attention': (16,), 'heads': 1, 'groups': 32}


def scrambled(build):
    """The module with random parameters everywhere, for fresh networks end in zeros."""
    rng, module = np.random.default_rng(1), nnx.eval_shape(build)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return nnx.jit(module)


def tiny_unet(forms=None, dropout=0.0, attention=(4,)):
    options = {**TINY, 'attention': attention, 'heads': 2, 'groups': 4, 'dropout': dropout}
    return scrambled(lambda: unet.UNet(8, 3, forms or {}, rngs=nnx.Rngs(0), **options))


def inputs(batch=2, size=8, channels=3):
    return jax.random.normal(jax.random.key(2), (batch, size, size, channels)), jnp.linspace(0.2, 0.9, batch)


def parameters(build):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))


def test_the_cifar10_config_has_ddpms_parameters():
    """35.7 million in Ho et al. 2020, appendix B; 35,746,307 in their code."""
    assert parameters(lambda: unet.UNet(32, 3, {}, **DDPM, dropout=0.1, rngs=nnx.Rngs(0))) == 35_746_307


@pytest.mark.parametrize('forms', [{}, TEN])
@pytest.mark.parametrize('attention', [(), (4, 8)])
def test_a_unet_maps_images_to_images(forms, attention):
    x, t = inputs()
    given = {'label': jnp.array([0, 2])} if forms else None
    y = tiny_unet(forms, attention=attention)(x, t, given)
    assert y.shape == x.shape and np.isfinite(y).all() and np.std(y) > 0


def test_the_null_label_is_no_label():
    x, t = inputs()
    network = tiny_unet(TEN)
    nothing = network(x, t, None)
    np.testing.assert_allclose(network(x, t, {'label': jnp.array([10, 10])}), nothing, rtol=1e-5, atol=1e-5)
    assert np.abs(network(x, t, {'label': jnp.array([0, 1])}) - nothing).max() > 1e-3


def test_a_unet_sees_the_time():
    x, t = inputs()
    network = tiny_unet()
    assert np.abs(network(x, t) - network(x, t + 0.1)).max() > 1e-3


def test_dropout_happens_with_a_key_only():
    x, t = inputs()
    network = tiny_unet(dropout=0.5)
    evaluated = network(x, t)
    np.testing.assert_array_equal(network(x, t), evaluated)
    trained = [network(x, t, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    for left, right in ((trained[0], trained[2]), (trained[0], evaluated)):
        assert np.abs(left - right).max() > 1e-3


@pytest.mark.parametrize(('shape', 'name', 'why'), [
    ((8, 6, 1), 'unet', 'square'),
    ((7, 7, 1), 'unet', 'divisible by 2.*7×7'),
    ((8, 8, 1), 'resnet', 'does not map noisy images'),
])  # fmt: skip
def test_a_network_that_does_not_fit_the_images_is_refused_with_the_reason(shape, name, why):
    config = ConfigDict(networks.defaults(name))
    with pytest.raises(UserError, match=why):
        networks.denoiser(config, DataSpec('images', shape, 17), {}, nnx.Rngs(0))


def test_an_unknown_network_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="'unett'.*Did you mean unet"):
        networks.defaults('unett')


@pytest.mark.parametrize('forms', [{}, TEN])
@pytest.mark.parametrize('multipliers', [(1,), (1, 2, 2)])
def test_an_autoencoder_mirrors_its_shapes(forms, multipliers):
    options = {**TINY, 'multipliers': multipliers, 'groups': 4, 'dropout': 0.0}

    def shapes(x):
        given = {'label': jnp.array([1, 2])} if forms else None
        z = autoencoder.Encoder(8, 3, 5, forms, **options, rngs=nnx.Rngs(0))(x, given)
        return z, autoencoder.Decoder(8, 5, 17, forms, **options, rngs=nnx.Rngs(0))(z, given)

    z, h = jax.eval_shape(shapes, inputs()[0])
    assert (z.shape, h.shape) == ((2, 5), (2, 8, 8, 17))


def test_an_autoencoder_attends_after_each_block_of_a_resolution_besides_the_middle():
    """B: residual block, A: attention, -: halving or doubling. The order is that of VQGAN's official code."""
    options = {'channels': 4, 'multipliers': (1, 1), 'blocks': 2, 'groups': 2, 'dropout': 0.0, 'middle': True}
    names = {ResidualBlock: 'B', layers.Attention: 'A', layers.Downsample: '-', layers.Upsample: '-'}

    def order(kind, **more):
        module = nnx.eval_shape(lambda: kind(8, 3, 3, {}, **options, **more, rngs=nnx.Rngs(0)))
        return ''.join(names[type(layer)] for layer in module.body)

    orders = {
        (4,): ('BB-BABABAB', 'BABBABABA-BBB'),
        (8,): ('BABA-BBBAB', 'BABBBB-BABABA'),
        (): ('BB-BBBAB', 'BABBBB-BBB'),
    }
    for attention, (encoder, decoder) in orders.items():
        assert order(autoencoder.Encoder, attention=attention) == encoder
        assert order(autoencoder.Decoder, attention=attention, decoder_blocks=3) == decoder


def test_attention_where_an_autoencoder_has_no_resolution_is_refused():
    made = config.resolve({'family': {'name': 'vae'}, 'network': {'name': 'autoencoder', 'attention': (3,)}}).network
    with pytest.raises(UserError, match='network.attention has 3, but images of 8 pixels have the heights 8, 4'):
        networks.encoder_and_decoder(
            made, DataSpec('images', (8, 8, 1), 17), {}, nnx.Rngs(0), codes=2, latent=2, outputs=1, pictures=False
        )


@pytest.mark.parametrize('forms', [{}, TEN])
@pytest.mark.parametrize('multipliers', [(1,), (1, 2, 2)])
def test_adversaries_have_the_shapes_of_images_and_logits(forms, multipliers):
    options = {**TINY, 'multipliers': multipliers}

    def shapes(z):
        given = {'label': jnp.array([1, 2])} if forms else None
        x = resnet.Generator(8, 3, forms, latent=5, label_features=4, **options, rngs=nnx.Rngs(0))(z, given)
        return x, resnet.Discriminator(8, 3, forms, **options, rngs=nnx.Rngs(0))(x, given)

    x, logits = jax.eval_shape(shapes, jnp.zeros((2, 5)))
    assert (x.shape, logits.shape) == ((2, 8, 8, 3), (2,))


def test_a_generator_stays_in_the_range_and_hears_the_label():
    generator = scrambled(lambda: resnet.Generator(8, 3, TEN, latent=5, label_features=4, **TINY, rngs=nnx.Rngs(0)))
    z = jax.random.normal(jax.random.key(0), (2, 5))
    x, other = (generator(z, {'label': jnp.array(pair)}) for pair in ([1, 2], [1, 3]))
    assert np.abs(x).max() <= 1
    np.testing.assert_allclose(x[0], other[0], atol=1e-5)
    assert np.abs(x[1] - other[1]).max() > 1e-3


def test_the_label_picks_the_discriminators_output():
    network = scrambled(lambda: resnet.Discriminator(8, 3, TEN, **TINY, rngs=nnx.Rngs(0)))
    x, _ = inputs()
    rows = np.stack([network(x, {'label': jnp.full(2, label)}) for label in range(10)], 1)
    assert (np.std(rows, 1) > 0).all()
    np.testing.assert_allclose(network(x, {'label': jnp.array([4, 7])}), [rows[0, 4], rows[1, 7]], rtol=1e-5)


def test_a_classifier_gives_features_and_logits():
    def shapes(x):
        network = Classifier(3, 10, 8, rngs=nnx.Rngs(0))
        return network(x), network.logits(network(x))

    features, logits = jax.eval_shape(shapes, inputs()[0])
    assert (features.shape, logits.shape) == ((2, Classifier.FEATURES), (2, 10))


@pytest.mark.parametrize('chunk', [1, 7, 40])
def test_moments_accumulate_in_chunks_to_numpys_mean_and_covariance(chunk):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 1, (40, 4)) @ rng.normal(size=(4, 4))
    component = rng.integers(0, 3, 40)
    moments, accumulate = Moments(3, 4), nnx.jit(Moments.accumulate)
    for start in range(0, 40, chunk):
        part = slice(start, start + chunk)
        accumulate(moments, jnp.asarray(x[part]), jnp.asarray(component[part]))
    means, covariances = moments.moments()
    for index in range(3):
        members = x[component == index]
        assert moments.count[index] == len(members)
        np.testing.assert_allclose(means[index], members.mean(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(covariances[index], np.cov(members.T, ddof=0), rtol=1e-3, atol=1e-3)


def test_moments_without_data_are_finite():
    means, covariances = Moments(2, 3).moments()
    assert np.isfinite(means).all() and np.isfinite(covariances).all()
