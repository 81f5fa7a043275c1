"""Maxout units against their definition, and a normalisation against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import maxout

SHAPE = (1, 2, 1)
OPTIONS = {'discriminator_hidden': (3, 2), 'pieces': 4, 'scale': 5.0}


def test_a_unit_is_the_largest_of_its_linear_pieces():
    network = maxout.Discriminator(SHAPE, {}, rngs=nnx.Rngs(0), **OPTIONS)
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    h = 5.0 * x
    for layer, units in zip(network.layers, (3, 2), strict=True):
        kernel, bias = np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])
        each = [
            [h @ kernel[:, 4 * unit + piece] + bias[4 * unit + piece] for piece in range(4)] for unit in range(units)
        ]
        h = np.stack([np.max(pieces, axis=0) for pieces in each], axis=1)
    wanted = h @ np.asarray(network.output.kernel[...])[:, 0] + np.asarray(network.output.bias[...])
    np.testing.assert_allclose(network(jnp.asarray(x).reshape(6, *SHAPE)), wanted, rtol=1e-4, atol=1e-7)


def test_a_normalisation_standardises_its_batch_and_later_uses_the_running_statistics():
    norm, x = maxout.Normalisation(2), np.array([[0.0, 10.0], [4.0, 30.0]])
    np.testing.assert_allclose(norm(jnp.asarray(x), True), [[-1, -1], [1, 1]], atol=1e-3)
    np.testing.assert_allclose(norm.mean[...], [0.1, 1.0], rtol=1e-6)  # a twentieth of the way from 0
    np.testing.assert_allclose(norm.variance[...], [0.95 + 0.2, 0.95 + 5.0], rtol=1e-6)
    wanted = (x - [0.1, 1.0]) / np.sqrt(np.array([1.15, 5.95]) + 1e-4)
    np.testing.assert_allclose(norm(jnp.asarray(x), False), wanted, rtol=1e-5)


def test_a_generator_has_the_statistics_of_a_batch_only_in_training_and_shrinks_by_the_scale():
    made = [
        maxout.Generator(SHAPE, 3, {}, hidden=(8, 8), normalise=True, scale=scale, rngs=nnx.Rngs(0))
        for scale in (1.0, 4.0)
    ]
    z = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    whole, part = made[0](z), made[0](z[:2])
    np.testing.assert_allclose(whole[:2], part, rtol=1e-5)
    np.testing.assert_allclose(made[1](z), whole / 4, rtol=1e-5)
    assert float(jnp.abs(made[0](z, training=True)[:2] - made[1](z[:2], training=True) * 4).max()) > 1e-3


def test_conditions_are_refused():
    with pytest.raises(UserError, match="gives it 'label'; use resnet or mlp"):
        maxout.Discriminator(SHAPE, {'label': Form('class', (3,))}, rngs=nnx.Rngs(0), **OPTIONS)
