"""TarFlow: cached sampling equals sampling without, volumes are the Jacobian's, sizes are those of the code."""

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from randomised import scrambled

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import tarflow

FORMS = {'label': Form('classes', (), 3)}
SMALL = {**tarflow.DEFAULTS, 'blocks': 2, 'depth': 1, 'width': 8, 'heads': 2, 'expansion': 2}
SHAPE = (4, 4, 1)
LABEL = {'label': jnp.array([0, 1, 2])}


def make(shape=SHAPE, forms=FORMS, **options):
    return tarflow.Flow(shape, forms, rngs=nnx.Rngs(0), **{**SMALL, **options})


@pytest.fixture(scope='module')
def flow():
    return scrambled(make(), 0.2)


@pytest.fixture(scope='module')
def x():
    return jax.random.uniform(jax.random.key(2), (3, *SHAPE), minval=-1, maxval=1)


def affine(block, x, given):
    """Log-scale and shift of every token, read off the block's values and derivatives at one x."""
    one = lambda tokens, label: jax.jacfwd(lambda v: block(v[None], label)[0][0])(tokens)  # noqa: E731
    jacobian = jax.vmap(one)(x, given and {name: values[:, None] for name, values in given.items()})
    scale = jnp.einsum('bijij->bij', jacobian)  # z depends on its own x through exp(−α) only
    return -jnp.log(scale), x - block(x, given)[0] / scale


def slowly(flow, z, given, weight=0.0, rising=True):
    """The inverse without a cache: the whole block is evaluated for every token, and gives this token only."""
    x = z.reshape(len(z), 4, -1)
    for block in reversed(flow.flows):
        z, found = x, x
        tokens = z.shape[1]
        for number in range(1, tokens):
            place = tokens - 1 - number if block.flipped else number
            log_scale, shift = affine(block, found, given)
            if weight:
                strength = weight * (number / (tokens - 1) if rising else 1.0)
                other = affine(block, found, None)
                log_scale = log_scale + strength * (log_scale - other[0])
                shift = shift + strength * (shift - other[1])
            found = found.at[:, place].set(z[:, place] * jnp.exp(log_scale[:, place]) + shift[:, place])
        x = found
    return x


def test_the_inverse_returns_to_the_image_in_single_precision(flow, x):
    z, _ = jax.jit(lambda x: flow(x, LABEL))(x)
    assert np.abs(np.reshape(z, -1) - np.reshape(flow._tokens(x), -1)).max() > 0.1
    np.testing.assert_allclose(jax.jit(lambda z: flow.inverse(z, LABEL))(z), x, atol=1e-4)


def test_the_log_determinant_is_that_of_the_jacobian(flow, x):
    one = lambda v, label: flow(v.reshape(1, *SHAPE), {'label': label[None]})[0][0]  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(3, -1), LABEL['label'])
    log_det = flow(x, LABEL)[1]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=1e-4)


@pytest.mark.parametrize(('weight', 'rising'), [(0.0, True), (1.5, True), (1.5, False)])
def test_sampling_by_cache_equals_sampling_without(flow, weight, rising):
    z = jax.random.normal(jax.random.key(3), (3, 16))
    fast = jax.jit(lambda z: flow.inverse(z, LABEL, tarflow.Guidance(weight, rising)))(z)
    slow = jax.jit(lambda z: slowly(flow, z, LABEL, weight, rising))(z)
    np.testing.assert_allclose(flow._tokens(fast), slow, rtol=1e-4, atol=1e-4)


def test_tokens_see_earlier_ones_only_and_orders_alternate(flow, x):
    tokens = flow._tokens(x)
    for block, kept in ((flow.flows[0], 0), (flow.flows[1], 3)):
        jacobian = jax.jacfwd(lambda v, block=block: block(v[None], {'label': jnp.zeros(1, int)})[0][0])(tokens[0])
        seen = np.abs(jacobian).sum((1, 3)) > 1e-6
        wanted = np.tril(np.ones((4, 4), bool))
        np.testing.assert_array_equal(seen, wanted[::-1, ::-1] if block.flipped else wanted)
        np.testing.assert_array_equal(block(tokens, LABEL)[0][:, kept], tokens[:, kept])


def test_no_class_is_the_mean_of_the_classes(flow, x):
    found = flow(x, None)[0]
    np.testing.assert_array_equal(flow(x, {'label': jnp.full(3, 3)})[0], found)
    same = scrambled(make(), 0.2)
    for block in same.flows:
        table = block.classes['label']
        table[...] = jnp.broadcast_to(table[...].mean(0), table.shape)
    np.testing.assert_allclose(same(x, LABEL)[0], found, atol=1e-5)


def test_a_density_of_two_dimensions_integrates_to_one():
    flow = scrambled(make((1, 2, 1), {}, patch=1), 0.2)
    assert integrals.of_flow(flow, 16.0, 600)[0] == pytest.approx(1, abs=1e-3)


def official_count(pixels, patch, width, blocks, depth, classes):
    """Parameters of the official code: a layer has two normalisations, attention, and an MLP four times as wide."""
    size, tokens = 3 * patch**2, (pixels // patch) ** 2
    layer = 12 * width**2 + 13 * width
    block = size * width + width + tokens * width + classes * width + depth * layer + 2 * size * (width + 1)
    return blocks * block


@pytest.mark.parametrize(
    ('pixels', 'patch', 'width', 'classes', 'millions'),
    [(64, 2, 768, 0, 460.1), (64, 2, 768, 1000, 466.3), (128, 4, 1024, 1000, 823.9), (256, 8, 768, 3, 463.5)],
)
def test_sizes_are_those_of_the_official_code(pixels, patch, width, classes, millions):
    """The formula gives those of the paper's 8 flows of 8 layers, and the size of the network at 2 flows of 2."""
    options = {**SMALL, 'patch': patch, 'width': width, 'heads': width // 64, 'blocks': 2, 'depth': 2, 'expansion': 4}
    forms = {'label': Form('classes', (), classes)} if classes else {}
    shapes = nnx.eval_shape(lambda: tarflow.Flow((pixels, pixels, 3), forms, rngs=nnx.Rngs(0), **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    assert found == official_count(pixels, patch, width, 2, 2, classes)
    assert round(official_count(pixels, patch, width, 8, 8, classes) / 1e6, 1) == millions


def test_patches_that_do_not_tile_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r'Patches of 3 pixels \(network.patch\) do not tile images of 4×4'):
        make(patch=3)
    with pytest.raises(UserError, match='network.width is 8; it should be divisible by network.heads'):
        make(heads=3)
