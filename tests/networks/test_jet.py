"""Jet: it returns, its volumes are the Jacobian's, halves are those of the official code, and so is its size."""

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from randomised import scrambled

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import jet
from genbench.networks.pixel_transformer import Block

FORMS = {'label': Form('classes', (), 3)}
SMALL = {**jet.DEFAULTS, 'patch': 1, 'couplings': 5, 'width': 8, 'heads': 2, 'expansion': 2}
SHAPE = (2, 4, 2)
LABEL = {'label': jnp.array([0, 1, 2])}


def make(shape=SHAPE, forms=FORMS, **options):
    return jet.Flow(shape, forms, rngs=nnx.Rngs(0), **{**SMALL, **options})


@pytest.fixture(scope='module')
def moved():
    """(flow with random parameters, images, their vectors and log-determinants)."""
    flow, x = scrambled(make(), 0.3), jax.random.uniform(jax.random.key(2), (3, *SHAPE), minval=-1, maxval=1)
    return flow, x, *jax.jit(lambda x: flow(x, LABEL))(x)


def test_the_inverse_returns_to_the_image_in_single_precision(moved):
    flow, x, z, _ = moved
    assert np.abs(np.reshape(z, (3, -1)) - np.reshape(x, (3, -1))).max() > 0.1
    np.testing.assert_allclose(jax.jit(lambda z: flow.inverse(z, LABEL))(z), x, atol=1e-4)


def test_the_log_determinant_is_that_of_the_jacobian(moved):
    flow, x, _, log_det = moved
    one = lambda v, label: flow(v.reshape(1, *SHAPE), {'label': label[None]})[0][0]  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(3, -1), LABEL['label'])
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=1e-4)


def test_every_value_moves_in_five_couplings_and_half_of_them_in_each(moved):
    flow, x, z, _ = moved
    assert (np.abs(z - np.reshape(x, z.shape)) > 1e-6).all()
    tokens = jax.random.normal(jax.random.key(3), (1, 8, 2))
    for coupling in (flow.couplings[0], flow.couplings[4]):
        changed = np.asarray(coupling(tokens, {'label': jnp.array([0])})[0] != tokens)[0]
        assert changed.sum() == 8 and changed.all(2 - coupling.axis).sum() == changed.shape[coupling.axis - 1] // 2


def test_halves_of_tokens_are_checkerboards_columns_and_rows_that_swap():
    """First halves by hand, as tokens of a grid of 2×4."""
    wanted = [[0, 2, 5, 7], [1, 3, 4, 6], [0, 2, 4, 6], [1, 3, 5, 7], [0, 1, 2, 3], [4, 5, 6, 7], [0, 2, 5, 7]]
    for number, first in enumerate(wanted):
        order = jet.halves_of_tokens(2, 4, number)
        assert order[:4].tolist() == first and sorted(order) == list(range(8))


def test_orders_of_values_are_the_same_in_every_version_of_the_libraries():
    """They are in no checkpoint. Recorded with NumPy 2.4."""
    assert make((2, 2, 6)).couplings[1].order == (4, 1, 2, 5, 3, 0)


def test_a_fresh_flow_is_the_identity():
    x = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    z, log_det = make(forms={}, couplings=1)(x)
    np.testing.assert_allclose(z, x.reshape(2, -1), atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def test_kernels_start_as_those_of_glorot_of_separate_queries_keys_and_values():
    block = Block(64, 4, 4, 1, 0.0, causal=False, glorot=True, rngs=nnx.Rngs(0))
    for layer, outputs in ((block.inputs, 64), (block.output, 64), (block.hidden, 256)):
        kernel, limit = np.asarray(layer.kernel[...]), np.sqrt(6 / (64 + outputs))
        assert 0.99 * limit < np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_a_density_of_two_dimensions_integrates_to_one():
    options = {'of_tokens': False, 'width': 8, 'heads': 2, 'depth': 1, 'expansion': 2, 'dtype': 'float32'}
    layers = [scrambled(jet.Coupling(1, 2, {}, order, rngs=nnx.Rngs(0), **options), 0.6)
              for order in (np.array([0, 1]), np.array([1, 0])) * 2]  # fmt: skip

    def flow(x):
        log_det = jnp.zeros(len(x))
        for layer in layers:
            x, change = layer(x)
            log_det += change
        return x, log_det

    total, values = integrals.of_flow(flow, 20.0, 600, shape=(1, 2))
    assert total == pytest.approx(1, abs=1e-3) and values.max() > 3 * values.mean()


def official_count(pixels, width, couplings, depth):
    """Parameters of the official code, without its frozen permutations."""
    size, tokens = 3 * 16, (pixels // 4) ** 2
    layer = 12 * width**2 + 13 * width
    return couplings * (size // 2 * width + width + tokens * width + depth * layer + 2 * width + size * (width + 1))


def test_the_size_is_that_of_the_official_code():
    """The formula gives the published totals, and the size of the network at two couplings."""
    options = {**SMALL, 'patch': 4, 'width': 512, 'heads': 8, 'couplings': 2, 'depth': 2, 'expansion': 4}
    shapes = nnx.eval_shape(lambda: jet.Flow((64, 64, 3), {}, rngs=nnx.Rngs(0), **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    assert found == official_count(64, 512, 2, 2)
    for couplings, depth, millions in ((32, 2, 209.3), (64, 5, 1024.0)):
        frozen = couplings * (48**2 + 256**2)
        assert round((official_count(64, 512, couplings, depth) + frozen) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ('shape', 'options', 'message'),
    [
        ((4, 6, 2), {'patch': 2}, r'Patches of 2 pixels \(network.patch\) do not tile images of 4×6 in an even number'),
        ((2, 2, 1), {}, 'have 1 values, which cannot be halved'),
        (SHAPE, {'heads': 3}, 'network.width is 8; it should be divisible by network.heads'),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        make(shape, **options)
