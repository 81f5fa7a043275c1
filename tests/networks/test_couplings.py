"""Invertible layers: they return, their volumes are those of the Jacobian, their densities integrate to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import couplings

FLOW = {'channels': 8, 'multipliers': (1, 2), 'steps': 2, 'margin': 0.01, 'dropout': 0.0}


def scrambled(build, scale=0.3):
    """The module with random parameters everywhere, for fresh couplings are the identity."""
    rng, module = np.random.default_rng(1), nnx.eval_shape(build)
    draw = lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape))  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module


def make_flow(shape=(4, 4, 2), forms=None, **options):
    return couplings.Flow(shape, forms or {}, rngs=nnx.Rngs(0), **{**FLOW, **options})


def images(shape, count=3):
    return jax.random.uniform(jax.random.key(2), (count, *shape), minval=-1, maxval=1)


LAYERS = {
    'logit': (lambda: couplings.Logit(0.05), (2, 2, 3)),
    'normalisation': (lambda: couplings.Normalisation(3), (2, 2, 3)),
    'mixing': (lambda: couplings.Mixing(6), (2, 1, 6)),
    'coupling': (lambda: couplings.Coupling(4, {}, width=8, dropout=0.0, rngs=nnx.Rngs(0)), (2, 2, 4)),
    'coupling of odd channels': (lambda: couplings.Coupling(3, {}, width=8, dropout=0.0, rngs=nnx.Rngs(0)), (2, 2, 3)),
    'step': (lambda: couplings.Step(4, {}, width=8, rngs=nnx.Rngs(0)), (2, 2, 4)),
    'flow': (make_flow, (4, 4, 2)),
    'flow of odd sides': (lambda: make_flow((6, 2, 1), multipliers=(1,)), (6, 2, 1)),
}
every_layer = pytest.mark.parametrize('name', LAYERS)


@pytest.fixture
def double():
    """In double precision, a formula that is only nearly right shows."""
    with jax.enable_x64(True):
        yield


@every_layer
def test_the_inverse_returns_to_the_image(name, double):
    build, shape = LAYERS[name]
    layer, x = scrambled(build), images(shape)
    y, _ = jax.jit(lambda x: layer(x))(x)
    assert np.abs(np.reshape(y, -1) - np.reshape(x, -1)).max() > 0.1
    np.testing.assert_allclose(jax.jit(layer.inverse)(y), x, atol=1e-9)


@every_layer
def test_the_log_determinant_is_that_of_the_jacobian(name, double):
    build, shape = LAYERS[name]
    layer, x = scrambled(build), images(shape)
    one = lambda x: layer(x.reshape(1, *shape))[0].ravel()  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(len(x), -1))
    np.testing.assert_allclose(layer(x)[1], np.linalg.slogdet(jacobians)[1], rtol=1e-9, atol=1e-9)


def test_a_density_of_two_dimensions_integrates_to_one():
    logit = couplings.Logit(0.05)
    steps = [scrambled(lambda: couplings.Step(2, {}, width=8, rngs=nnx.Rngs(0))) for _ in range(3)]

    def density(x):
        y, log_p = logit(x.reshape(-1, 1, 1, 2))
        for step in steps:
            y, change = step(y)
            log_p += change
        return jnp.exp(log_p + jax.scipy.stats.norm.logpdf(y).sum((1, 2, 3)))

    edge, count = 1 / (1 - 2 * 0.05), 500  # the logit maps (−edge, edge) onto the line
    ticks = edge * ((2 * np.arange(count) + 1) / count - 1)
    cells = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    values = np.asarray(jax.jit(density)(jnp.asarray(cells, jnp.float32)), np.float64)
    assert values.max() > 3 * values.mean()
    assert values.sum() * (2 * edge / count) ** 2 == pytest.approx(1, abs=1e-3)


def test_squeezing_keeps_neighbours_together():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(couplings.squeeze(x)[0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(couplings.unsqueeze(couplings.squeeze(x)), x)


def test_a_fresh_flow_fitted_to_a_batch_normalises_it():
    """Fresh couplings are the identity, so what comes out has mean 0 and variance 1 in every channel."""
    flow, x = make_flow(multipliers=(1,)), images((4, 4, 2), 32) ** 3 * jnp.array([0.2, 0.9])
    z, _ = flow(x, fit=True)
    channels = np.reshape(z, (-1, 8))
    np.testing.assert_allclose(channels.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(channels.std(0), 1, atol=1e-3)
    np.testing.assert_array_equal(flow(x)[0], z)


def test_a_conditional_flow_hears_the_label(double):
    forms = {'label': Form('classes', (), 3)}
    flow, x = scrambled(lambda: make_flow(forms=forms, multipliers=(1,))), images((4, 4, 2))
    one, other = (flow(x, {'label': jnp.full(3, label)}) for label in (0, 1))
    assert np.abs(one[0] - other[0]).max() > 1e-2 and np.abs(one[1] - other[1]).max() > 1e-2
    np.testing.assert_allclose(flow.inverse(one[0], {'label': jnp.zeros(3, int)}), x, atol=1e-9)


def test_dropout_happens_with_a_key_only():
    flow, x = scrambled(lambda: make_flow(dropout=0.5, multipliers=(1,), steps=1)), images((4, 4, 2))
    np.testing.assert_array_equal(flow(x)[0], flow(x)[0])
    drawn = [flow(x, key=jax.random.key(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3 and np.abs(drawn[0] - flow(x)[0]).max() > 1e-3


@pytest.mark.parametrize('shape', [(6, 8, 1), (8, 6, 1)])
def test_images_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(UserError, match='2 scales.*divisible by 4; these have [68]×[68]'):
        make_flow(shape)
