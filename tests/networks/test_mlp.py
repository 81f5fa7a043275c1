"""Perceptrons: how many parameters they have, and that a flow of them is what it says it is."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config as configs
from genbench import families, networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.networks import mlp

POINT, SIZES = (1, 2, 1), {'hidden': (16, 16), 'activation': 'silu'}


def count(module):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.eval_shape(module)))


def test_the_autoencoder_of_iwae_has_the_parameters_of_the_paper():
    """Two hidden layers of 200 units in each, and 50 latents with mean and scale (Burda et al. 2016, section 5)."""
    config, spec = configs.load('configs/paper/iwae_mnist.py'), DataSpec('mnist', (28, 28, 1), 256)

    def build():
        rngs = nnx.Rngs(0)
        made = networks.encoder_and_decoder(
            config.network, spec, {}, rngs, codes=100, latent=50, outputs=1, pictures=False
        )
        return {name: nnx.state(module, nnx.Param) for name, module in made.items()}

    assert count(lambda: build()['encoder']) == 785 * 200 + 201 * 200 + 201 * 100
    assert count(lambda: build()['decoder']) == 51 * 200 + 201 * 200 + 201 * 784


def test_gated_units_are_a_linear_layer_times_the_sigmoid_of_another():
    """The numbers of parameters are those of VampPrior's VAE: 40 latents and two layers of 300 gated units."""
    config, spec = configs.load('configs/paper/gated_vae_mnist.py'), DataSpec('mnist', (28, 28, 1), 256)
    made = networks.encoder_and_decoder(
        config.network, spec, {}, nnx.Rngs(0), codes=80, latent=40, outputs=1, pictures=False
    )
    encoder, decoder = made['encoder'], made['decoder']
    assert count(lambda: encoder) == 2 * 785 * 300 + 2 * 301 * 300 + 301 * 80
    assert count(lambda: decoder) == 2 * 41 * 300 + 2 * 301 * 300 + 301 * 784
    assert float(encoder.layers[0].kernel[...].std()) == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    z = np.asarray(jax.random.normal(jax.random.key(0), (3, 40)), np.float64)
    arrays = lambda layer: (np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...]))  # noqa: E731
    h = z
    for linear, gate in zip(decoder.layers[:-1], decoder.gates, strict=True):
        (w, b), (v, c) = arrays(linear), arrays(gate)
        h = (h @ w + b) / (1 + np.exp(-(h @ v + c)))
    w, b = arrays(decoder.layers[-1])
    np.testing.assert_allclose(decoder(jnp.asarray(z, jnp.float32)).reshape(3, -1), h @ w + b, rtol=1e-3, atol=1e-4)


def test_a_decoder_and_a_discriminator_may_have_widths_of_their_own():
    network = configs.resolve({
        'family': {'name': 'vae'}, 'network': {'name': 'mlp', 'hidden': (7, 5), 'decoder_hidden': (5, 7)}
    }).network  # fmt: skip
    spec = DataSpec('points', POINT, 256)
    coded = networks.encoder_and_decoder(network, spec, {}, nnx.Rngs(0), codes=6, latent=3, outputs=1, pictures=False)
    played = networks.generator_and_discriminator(network, spec, {}, nnx.Rngs(0))
    for first, second in (('encoder', 'decoder'), ('generator', 'discriminator')):
        made = coded | played
        assert [layer.kernel.shape[1] for layer in made[first].layers][:-1] == [7, 5]
        assert [layer.kernel.shape[1] for layer in made[second].layers][:-1] == [5, 7]


def test_a_generator_may_have_fewer_latents_than_values_and_a_vae_refuses_that_key():
    network = configs.resolve({'family': {'name': 'gan'}, 'network': {'name': 'mlp', 'latent': 1}}).network
    spec = DataSpec('points', POINT, 256)
    assert (
        networks.generator_and_discriminator(network, spec, {}, nnx.Rngs(0))['generator'].layers[0].kernel.shape[0] == 1
    )
    with pytest.raises(UserError, match='set it to 0, and use family.latent'):
        networks.encoder_and_decoder(network, spec, {}, nnx.Rngs(0), codes=2, latent=1, outputs=1, pictures=False)


@pytest.mark.parametrize(
    ('family', 'key', 'value'),
    [('diffusion', 'initial', 'lecun'), ('diffusion', 'latent', 3), ('vae', 'time', 'input'), ('gan', 'time', 'input'),
     ('normalizing_flow', 'decoder_hidden', (4,)), ('flow_matching', 'decoder_hidden', (4,))],
)  # fmt: skip
def test_a_key_that_these_networks_do_not_read_is_refused(family, key, value):
    config = configs.resolve({'family': {'name': family}, 'network': {'name': 'mlp', 'hidden': (4,), key: value}})
    with pytest.raises(UserError, match=f'network.{key} is .* reads only for an? '):
        families.get(family)(config, DataSpec('points', POINT, 256)).networks(nnx.Rngs(0))


def moved(module):
    """With random numbers in place of zeros."""
    graph, state = nnx.split(module)
    leaves, tree = jax.tree.flatten(state)
    draw = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.unflatten(tree, [jnp.asarray(draw.normal(0, 0.3, x.shape)) for x in leaves]))


def test_the_volume_of_a_flow_is_that_of_its_jacobian_and_its_inverse_leads_back():
    flow = moved(mlp.Flow(POINT, {}, **SIZES, rngs=nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(1).uniform(-0.9, 0.9, (6, *POINT)))

    @jax.jit
    def found(x):
        z, log_det = flow(x)
        jacobian = jax.vmap(jax.jacfwd(lambda one: flow(one.reshape(1, *POINT))[0][0]))(x.reshape(6, 2))
        return log_det, flow.inverse(z), jacobian

    log_det, back, jacobian = found(x)
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-4)


def test_a_denoiser_hears_times_and_classes():
    forms = {'label': Form('classes', size=3)}
    net = moved(mlp.Denoiser(POINT, forms, **SIZES, outputs=2, rngs=nnx.Rngs(0)))
    x = jnp.ones((2, *POINT))
    call = jax.jit(lambda t, label: net(x, jnp.full(2, t), {'label': jnp.array(label)}), static_argnums=1)
    early, late, other = call(0.1, (0, 0)), call(0.9, (0, 0)), call(0.1, (1, 2))
    assert early.shape == (2, 1, 2, 2)
    assert np.abs(early - late).max() > 1e-3 and np.abs(early - other).max() > 1e-3


def test_words_and_pictures_are_refused():
    with pytest.raises(UserError, match='use unet or dit'):
        mlp.Denoiser(POINT, {'caption': Form('tokens', (4,), size=9)}, **SIZES, rngs=nnx.Rngs(0))


def test_gates_are_refused_where_times_are_sinusoids():
    with pytest.raises(UserError, match='activation=gated is for perceptrons without sinusoids'):
        mlp.Denoiser(POINT, {}, **{**SIZES, 'activation': 'gated'}, rngs=nnx.Rngs(0))


def test_codes_that_are_pictures_need_resolutions():
    config = configs.load('configs/paper/iwae_mnist.py').network
    with pytest.raises(UserError, match='mlp has none'):
        networks.encoder_and_decoder(
            config, DataSpec('mnist', (28, 28, 1), 256), {}, nnx.Rngs(0), codes=4, latent=4, outputs=1, pictures=True
        )


def test_time_as_an_input_is_a_plain_perceptron_of_both():
    """The size of Tong et al.'s, 3·64 + 64 + 2 (64² + 64) + 2·64 + 2, and a function of x and t alone."""
    options = {'hidden': (64, 64, 64), 'activation': 'selu', 'rngs': nnx.Rngs(0)}
    network = mlp.TimeAsInput((1, 2, 1), {}, **options)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))) == 8706
    x, t = jax.random.normal(jax.random.key(0), (5, 1, 2, 1)), jnp.linspace(0, 1, 5)
    h = jnp.concatenate([x.reshape(5, 2), t[:, None]], 1)
    for index, layer in enumerate(network.layers):
        h = h @ layer.kernel[...] + layer.bias[...]
        h = 1.0507009873554805 * jnp.where(h > 0, h, 1.6732632423543772 * (jnp.exp(h) - 1)) if index < 3 else h
    np.testing.assert_allclose(network(x, t), h.reshape(5, 1, 2, 1), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='network.time=input is for models without conditions'):
        mlp.TimeAsInput((1, 2, 1), {}, second_time=True, **options)
