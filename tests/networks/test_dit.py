"""The diffusion transformer: sizes, what fresh blocks do, and what it refuses."""

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
from genbench.networks import dit

TINY = {'patch': 2, 'depth': 2, 'width': 32, 'heads': 2}


def labels(classes):
    return {'label': Form('classes', (), classes)} if classes else {}


def parameters(shape, classes, **options):
    build = nnx.eval_shape(lambda: dit.DiT(shape, labels(classes), **options, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(build, nnx.Param)))


def closed_form(depth, width, pixels, classes):
    """Weights and biases by Peebles & Xie's section 3: qkv, output, two of the perceptron, adaLN's six, by block."""
    block = (3 + 1 + 4 + 4 + 6) * width**2 + (3 + 1 + 4 + 1 + 6) * width
    ends = pixels * width + width + 2 * width**2 + 2 * width + width * pixels + pixels
    condition = 256 * width + width + width**2 + width + (classes + 1) * width * bool(classes)
    return depth * block + ends + condition


@pytest.mark.parametrize(('classes', 'patch'), [(0, 2), (10, 2), (0, 4)])
def test_dit_s_has_its_parameters(classes, patch):
    found = parameters((32, 32, 3), classes, patch=patch, depth=12, width=384, heads=6)
    assert found == closed_form(12, 384, 3 * patch**2, classes)
    assert found / 1e6 == pytest.approx(32.6, abs=0.4)  # 33M in table 1, with 4-channel latents and 1000 classes


def test_a_fresh_network_is_zero_and_its_blocks_are_the_identity():
    network = dit.DiT((8, 8, 1), labels(3), **TINY, rngs=nnx.Rngs(0))
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.1, 0.9])
    np.testing.assert_array_equal(network(x, t, {'label': jnp.array([0, 2])}), jnp.zeros_like(x))
    h = jax.random.normal(jax.random.key(1), (2, 16, 32))
    np.testing.assert_array_equal(network.blocks[0](h, jnp.ones((2, 32)), None), h)


def scrambled(shape, classes=0):
    network = dit.DiT(shape, labels(classes), **TINY, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(network, jax.tree.map(draw, nnx.state(network, nnx.Param)))
    return network


def test_patches_return_to_where_they_came_from():
    """With blocks and modulation that do nothing and one matrix back and forth, each patch keeps its own pixels."""
    network = dit.DiT((4, 6, 2), {}, **TINY, rngs=nnx.Rngs(0))
    matrix = jax.random.normal(jax.random.key(0), (8, 32))
    network.tokens.kernel[...] = matrix
    x, t = jnp.zeros((1, 4, 6, 2)), jnp.zeros(1)
    network.output.kernel[...] = matrix.T
    changed = np.asarray(network(x.at[0, 2, 3, 1].set(1.0), t) - network(x, t))[0]
    rows, columns = np.nonzero(np.abs(changed).max(-1) > 1e-6)
    assert set(rows) == {2, 3} and set(columns) == {2, 3}
    assert np.unravel_index(np.abs(changed).argmax(), changed.shape) == (2, 3, 1)


def test_labels_times_and_places_are_seen():
    network = scrambled((8, 8, 1), 3)
    x, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 1)), jnp.array([0.3, 0.6])
    given = {'label': jnp.array([0, 1])}
    y = network(x, t, given)
    assert np.abs(network(x, t, {'label': jnp.array([1, 0])}) - y).max() > 1e-3
    assert np.abs(network(x, t + 0.1, given) - y).max() > 1e-3
    null = {'label': jnp.array([3, 3])}
    np.testing.assert_allclose(network(x, t, null), network(x, t, None), rtol=1e-5, atol=1e-5)
    rolled = network(jnp.roll(x, 2, axis=1), t, given)
    assert np.abs(jnp.roll(rolled, -2, axis=1) - y).max() > 1e-3


def test_positions_are_distinct_and_of_unit_length():
    table = dit.positions(4, 6, 32)
    assert table.shape == (24, 32)
    np.testing.assert_allclose(np.square(table).sum(1), 16, rtol=1e-5)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1) + 9 * np.eye(24)
    assert distances.min() > 0.5


@pytest.mark.parametrize(('shape', 'options', 'why'), [
    ((7, 7, 1), {}, 'network.patch.*7×7'),
    ((8, 8, 1), {'heads': 3}, 'network.width'),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(shape, options, why):
    config = ConfigDict({**networks.defaults('dit'), **options})
    with pytest.raises(UserError, match=why):
        networks.denoiser(config, DataSpec('images', shape, 17), {}, nnx.Rngs(0))
