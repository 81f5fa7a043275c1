"""Conditions inside networks: every form is heard, by its own image alone, and what is not told is knowing nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.interpolants import predictions, schedules
from genbench.networks import autoencoder, couplings, layers, resnet

SPEC = DataSpec('images', (8, 8, 2), levels=5)
FORMS = {
    'label': Form('classes', (), 3),
    'caption': Form('tokens', (4,), 20),
    'grey': Form('image', (8, 8, 1)),
    'pose': Form('vector', (5,)),
    'guidance_weight': Form('number', limits=(0.0, 4.0)),
}
SMALL = {
    'unet': {'channels': 8, 'multipliers': (1, 2), 'blocks': 1, 'attention': (4,), 'heads': 2, 'groups': 4},
    'dit': {'patch': 2, 'depth': 2, 'width': 16, 'heads': 2},
}
every_network = pytest.mark.parametrize('name', SMALL)
every_form = pytest.mark.parametrize('form', FORMS)


@functools.cache
def built(name, *forms):
    """A network for these forms with random parameters everywhere, for fresh ones end in zeros."""
    config = ConfigDict({**networks.defaults(name), **SMALL[name]})
    chosen = {form: FORMS[form] for form in forms}
    network = nnx.eval_shape(lambda: networks.denoiser(config, SPEC, chosen, nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(network, jax.tree.map(draw, nnx.state(network, nnx.Param)))
    return nnx.jit(network)


def drawn(form, count=3, seed=0):
    rng, shape = np.random.default_rng(seed), (count, *form.shape)
    return jnp.asarray(rng.integers(1, form.size, shape) if form.size else rng.normal(size=shape).astype(np.float32))


def inputs(count=3):
    return jax.random.normal(jax.random.key(0), (count, *SPEC.shape)), jnp.linspace(0.2, 0.9, count)


@every_network
@every_form
def test_a_condition_is_heard_by_its_image_alone(name, form):
    network, (x, t) = built(name, form), inputs()
    told = drawn(FORMS[form])
    other = told.at[1].set((told[1] + 1) % FORMS[form].size if FORMS[form].size else told[1] + 1)
    changed = np.abs(network(x, t, {form: told}) - network(x, t, {form: other})).max((1, 2, 3))
    assert changed[1] > 1e-3 and max(changed[0], changed[2]) < 1e-5


@every_network
@every_form
def test_knowing_nothing_is_being_told_the_null(name, form):
    network, (x, t) = built(name, form), inputs()
    nothing = network(x, t, None)
    np.testing.assert_allclose(network(x, t, {form: FORMS[form].null(3)}), nothing, rtol=1e-5, atol=1e-5)
    assert np.abs(network(x, t, {form: drawn(FORMS[form])}) - nothing).max() > 1e-3


@every_network
def test_a_fresh_network_does_not_hear_the_weight_of_guidance(name):
    """So that a student may start as a teacher that knows no weight; the sinusoids are those of the times."""
    config, form = ConfigDict({**networks.defaults(name), **SMALL[name]}), {'guidance_weight': FORMS['guidance_weight']}
    network = nnx.eval_shape(lambda: networks.denoiser(config, SPEC, form, nnx.Rngs(0)))
    fresh = layers.Conditioning(8, 16, form, endpoint=True, kernel_init=layers.fan_average,
                                class_init=layers.zeros, rngs=nnx.Rngs(0))  # fmt: skip
    w, t = jnp.array([0.0, 2.5]), jnp.array([0.4, 0.4])
    same, other = fresh(t, {'guidance_weight': w})
    np.testing.assert_array_equal(same, other)
    assert {leaf.shape for leaf in jax.tree.leaves(nnx.state(network.conditioning.numbers))}
    fresh.numbers['guidance_weight'].kernel[...] = jnp.ones((8, 16))
    angles = 1000 * np.outer(w, [1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
    shift = (np.sin(angles) + np.cos(angles)).sum(1, keepdims=True)
    plain = layers.timestep_embedding(t, 8) @ fresh.hidden.kernel[...] + fresh.hidden.bias[...] + shift
    wanted = nnx.silu(nnx.silu(plain) @ fresh.output.kernel[...] + fresh.output.bias[...])
    np.testing.assert_allclose(fresh(t, {'guidance_weight': w}), wanted, rtol=1e-3, atol=1e-3)


@every_network
def test_the_order_of_words_is_heard(name):
    (x, t), words = inputs(), jnp.array([[3, 7, 0, 0]] * 3)
    network = built(name, 'caption')
    difference = network(x, t, {'caption': words}) - network(x, t, {'caption': words[:, jnp.array([1, 0, 2, 3])]})
    assert np.abs(difference).max() > 1e-3


@every_network
def test_conditions_of_all_forms_are_heard_together(name):
    network, (x, t) = built(name, *FORMS), inputs()
    given = {form: drawn(FORMS[form]) for form in FORMS}
    y = network(x, t, given)
    for form in FORMS:
        silent = network(x, t, {other: values for other, values in given.items() if other != form})
        assert np.abs(silent - y).max() > 1e-3
        nulled = network(x, t, {**given, form: FORMS[form].null(3)})
        np.testing.assert_allclose(silent, nulled, rtol=1e-5, atol=1e-5)


@every_network
@every_form
@pytest.mark.parametrize('weight', [0.5, 3.0])
def test_guidance_is_the_same_extrapolation_for_every_form(name, form, weight):
    """Ho & Salimans 2022, equation 6, of the network's outputs, which are noise here."""
    network, schedule, (x, t), given = built(name, form), schedules.cosine(), inputs(), {form: drawn(FORMS[form])}
    conditional, unconditional = (network(x, schedule.condition(t), told) for told in (given, None))
    found = predictions.denoiser(network, 'noise', schedule, given, weight)(x, t).noise
    np.testing.assert_allclose(found, (1 + weight) * conditional - weight * unconditional, rtol=1e-4, atol=1e-4)


def test_cross_attention_is_softmax_over_the_words():
    """Two heads, by loops; fresh, it adds nothing."""
    layer = layers.CrossAttention(8, 6, heads=2, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    x, words = rng.normal(size=(2, 5, 8)).astype(np.float32), rng.normal(size=(2, 3, 6)).astype(np.float32)
    np.testing.assert_array_equal(layer(x, words), x)
    layer.output.kernel[...] = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)
    queries, inputs, output = (np.asarray(one.kernel[...]) for one in (layer.queries, layer.inputs, layer.output))
    for index in range(2):
        query, seen = x[index] @ queries, words[index] @ inputs
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            scores = query[:, part] @ seen[:, :8][:, part].T / np.sqrt(4)
            weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            heads.append(weights @ seen[:, 8:][:, part])
        wanted = x[index] + np.concatenate(heads, 1) @ output
        np.testing.assert_allclose(layer(x, words)[index], wanted, rtol=1e-4, atol=1e-4)


CLASSES_ONLY = {
    'encoder': lambda forms: autoencoder.Encoder(
        8, 2, 4, forms, channels=8, multipliers=(1,), blocks=1, groups=4, dropout=0.0, rngs=nnx.Rngs(0)
    ),
    'generator': lambda forms: resnet.Generator(
        8, 2, forms, channels=8, multipliers=(1,), blocks=1, latent=4, label_features=4, rngs=nnx.Rngs(0)
    ),
    'discriminator': lambda forms: resnet.Discriminator(
        8, 2, forms, channels=8, multipliers=(1,), blocks=1, rngs=nnx.Rngs(0)
    ),
    'flow': lambda forms: couplings.Flow(
        (8, 8, 2), forms, channels=8, multipliers=(1,), steps=1, margin=0.05, dropout=0.0, rngs=nnx.Rngs(0)
    ),
}


@pytest.mark.parametrize('name', CLASSES_ONLY)
@pytest.mark.parametrize('form', ['caption', 'grey', 'pose'])
def test_a_network_of_classes_refuses_other_forms_and_says_what_takes_them(name, form):
    with pytest.raises(UserError, match=f'condition {form}: .*{FORMS[form].type}.*unet or a dit'):
        CLASSES_ONLY[name]({'label': FORMS['label'], form: FORMS[form]})
