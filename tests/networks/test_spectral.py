"""Spectral normalisation against the singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.networks import gradients, resnet, spectral
from genbench.training.state import Blueprint


@pytest.mark.parametrize('kind', ['conv', 'linear'])
def test_after_some_calls_the_largest_singular_value_is_one(kind):
    """Within a thousandth, of the matrix whose rows are places of the window and inputs."""
    layer = spectral.Conv(5, 7, rngs=nnx.Rngs(0)) if kind == 'conv' else spectral.Linear(6, 4, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 3, 3, 5)) if kind == 'conv' else jnp.ones((1, 6))
    call = nnx.jit(lambda layer, x: layer(x))
    for _ in range(60):
        call(layer, x)
    kernel, _ = spectral.normalised(layer.kernel[...], layer.left[...])
    values = np.linalg.svd(np.asarray(kernel).reshape(-1, kernel.shape[-1]), compute_uv=False)
    assert values[0] == pytest.approx(1, abs=1e-3)


def test_the_gradient_is_that_of_the_papers_equation():
    """(G − ⟨W̄, G⟩ u vᵀ) / σ for the gradient G by the normalised kernel W̄ (equation 12), with exact u, v and σ."""
    rng = np.random.default_rng(0)
    matrix, weights = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    u, sigma, v = np.linalg.svd(matrix)
    found = jax.grad(lambda m: (spectral.normalised(m, jnp.asarray(v[0]))[0] * weights).sum())(jnp.asarray(matrix))
    wanted = (weights - (matrix / sigma[0] * weights).sum() * np.outer(u[:, 0], v[0])) / sigma[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope='module')
def critic():
    options = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1}
    return nnx.jit(lambda: resnet.Discriminator(8, 3, {}, **options, spectral=True, rngs=nnx.Rngs(0)))()


def test_scaling_kernels_changes_nothing(critic):
    """Biases start at zero, so what is left of a fresh network is its kernels."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    definition, *states = nnx.split(critic, nnx.Param, ...)
    params, rest = map(nnx.to_pure_dict, states)

    @jax.jit
    def run(scale):
        scaled = jax.tree.map(lambda leaf: scale * leaf, params)
        return nnx.merge(definition, scaled, rest)(x)

    np.testing.assert_allclose(run(1.0), run(5.0), rtol=1e-4, atol=1e-6)


def test_a_penalty_of_slopes_refines_the_estimates_once(critic):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    before = np.asarray(critic.conv_in.left[...])
    wanted = np.asarray(spectral.normalised(critic.conv_in.kernel[...], critic.conv_in.left[...])[1])
    values, slopes = nnx.jit(lambda critic, x: gradients.value_and_input_gradient(critic, x))(critic, x)
    np.testing.assert_allclose(critic.conv_in.left[...], wanted, rtol=1e-4, atol=1e-6)
    assert np.abs(wanted - before).max() > 1e-4 and slopes.shape == x.shape and values.shape == (2,)


def test_a_gan_may_normalise_its_discriminator_alone():
    network = {'channels': 8, 'multipliers': (1,), 'spectral': True}
    values = config.resolve({'family': {'name': 'gan', 'loss': 'hinge', 'penalty': 'none'}, 'network': network})
    aux = Blueprint(families.get('gan')(values, DataSpec('images', (4, 4, 3), 5))).shapes['aux']
    assert jax.tree.leaves(aux['discriminator']) and not jax.tree.leaves(aux['generator'])
