"""RealNVP: it returns, its volume is that of the Jacobian, its density integrates to one, its size is the code's."""

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config as configs
from genbench import networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import normalizing_flow
from genbench.networks import real_nvp

SMALL = {'channels': 4, 'scales': 2, 'blocks': 1, 'margin': 0.05}
SHAPE = (4, 4, 2)


def make(shape=SHAPE, forms=None, **options):
    return real_nvp.Flow(shape, forms or {}, rngs=nnx.Rngs(0), **{**SMALL, **options})


def scrambled(module, scale=0.3):
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    statistics = nnx.state(module, nnx.BatchStat)  # means around 0, variances around 1
    nnx.update(module, jax.tree.map(lambda leaf: leaf * jnp.exp(draw(leaf)) + (leaf == 0) * draw(leaf), statistics))
    return module


def images(shape=SHAPE, count=16):
    return jax.random.uniform(jax.random.key(2), (count, *shape), minval=-1, maxval=1)


@pytest.fixture(scope='module')
def fitted():
    """(flow with random parameters and statistics, images, their vectors and log-determinants)."""
    flow, x = scrambled(make(forms={'label': Form('classes', (), 3)})), images()
    call = jax.jit(lambda x: flow(x, {'label': jnp.zeros(len(x), int)}))
    return flow, x, *call(x)


def test_the_inverse_returns_to_the_image_in_single_precision(fitted):
    flow, x, z, _ = fitted
    assert z.shape == (16, 32) and np.abs(np.reshape(x, (16, -1)) - z).max() > 0.5
    found = jax.jit(lambda z: flow.inverse(z, {'label': jnp.zeros(16, int)}))(z)
    np.testing.assert_allclose(found, x, atol=1e-4)


def test_the_log_determinant_is_that_of_the_jacobian(fitted):
    flow, x, _, log_det = fitted
    one = lambda v: flow(v.reshape(1, *SHAPE), {'label': jnp.zeros(1, int)})[0][0]  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(16, -1))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=1e-3)


def test_every_mask_keeps_half_and_its_successor_the_other_half(fitted):
    """And a coupling leaves what it keeps as it was."""
    flow, x, *_ = fitted
    board, diagonal = flow.boards[0][0].mask(x), np.indices(SHAPE[:2]).sum(0) % 2
    np.testing.assert_array_equal(board[..., 0], 1 - diagonal)
    for group in (*flow.boards, *flow.halves):
        for one, other in zip(list(group)[:-1], list(group)[1:], strict=True):
            states = jnp.ones((1, 2, 2, one.mean.shape[0]))
            np.testing.assert_array_equal(one.mask(states) + other.mask(states), 1)
            assert one.mask(states).mean() == 0.5
    y, _ = flow.boards[0][0](x, {'label': jnp.zeros(16, int)})
    np.testing.assert_array_equal(np.where(board, y - x, 0), 0)
    assert [len(group) for group in (*flow.boards, *flow.halves)] == [3, 4, 3, 0]


def test_what_is_factored_out_lies_on_the_other_diagonal():
    """As in the official code: of 2×2 pixels, the upper left and the lower right one stay."""
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    colours, diagonals = real_nvp.orders(1)
    assert real_nvp.squeeze(x)[0, 0, 0, diagonals].tolist() == [0, 3, 1, 2]
    np.testing.assert_array_equal(real_nvp.orders(2)[0], [0, 2, 4, 6, 1, 3, 5, 7])


def test_a_density_of_two_dimensions_integrates_to_one():
    flow = scrambled(make((1, 2, 1), scales=1))
    total, values = integrals.of_flow(flow, 1 / (1 - 2 * 0.05))  # the logit maps this square onto the plane
    assert values.max() > 2 * values.mean()
    assert total == pytest.approx(1, abs=1e-3)


def test_training_uses_the_statistics_of_the_batch_and_evaluation_their_average():
    """Values that move have mean 0 and variance 1 after a coupling, up to the zeros that the statistics count."""
    fresh = real_nvp.Coupling(4, {}, checkered=False, second=False, width=4, blocks=1, rngs=nnx.Rngs(0))
    layer, x = scrambled(fresh), images((2, 2, 4), 32)
    seen = [np.array(layer.mean[...])]
    for _ in range(2):
        y, _ = layer(x, training=True)
        seen.append(np.array(layer.mean[...]))
    np.testing.assert_allclose(y[..., 2:].mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(y[..., 2:].std((0, 1, 2)), 1, rtol=1e-2)
    np.testing.assert_allclose(seen[1] - 0.9 * seen[0], seen[2] - 0.9 * seen[1], atol=1e-5)  # 0.1 of the batch's mean
    layer(x)
    np.testing.assert_array_equal(layer.mean[...], seen[2])


def official_count(depth, width, blocks, scales):
    """Parameters of the official code for images with this many colours, layer by layer as it names them."""

    def conv(size, before, after, bias=True, scale=False):
        return size * size * before * after + after * (bias + scale)

    def network(inputs, outputs, width):
        block = 2 * width + conv(3, width, width, bias=False) + conv(3, width, width, scale=True)  # and two norms
        skips = (blocks + 1) * conv(1, width, width, scale=True)
        ends = conv(3, inputs, width) + width + conv(1, width, outputs, scale=True)
        return blocks * block + skips + ends

    total = 0
    for scale in range(scales):
        last = scale == scales - 1
        board = depth + network(2 * depth + 1, 2 * depth, width) + 1
        half = 2 * depth + network(4 * depth, 4 * depth, 2 * width) + 1
        total += (3 + last) * board + (0 if last else 3) * half
        depth, width = 2 * depth, 2 * width
    return total


def test_the_size_on_cifar_10_is_that_of_the_official_code():
    settings = configs.read_file('cifar10/real_nvp')['network']
    options = {key: value for key, value in {**networks.defaults('real_nvp'), **settings}.items() if key != 'name'}
    shapes = nnx.eval_shape(lambda: real_nvp.Flow((32, 32, 3), {}, rngs=nnx.Rngs(0), **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    assert found == official_count(3, 64, 8, 2) == 19_609_545


def test_the_penalty_is_the_sum_of_squared_norms_and_reaches_and_is_part_of_the_loss():
    resolved = configs.resolve({
        'family': {'name': 'normalizing_flow', 'scale_penalty': 0.5},
        'network': {'name': 'real_nvp', **SMALL},
    })  # fmt: skip
    family = normalizing_flow.NormalizingFlow(resolved, DataSpec('pixels', SHAPE, levels=5))
    flow = family.networks(nnx.Rngs(0))['flow']
    paths = dict(nnx.to_flat_state(nnx.state(flow, nnx.Param)))
    wanted = sum(np.square(leaf[...]).sum() for path, leaf in paths.items() if path[-1] == 'magnitude')
    assert flow.penalty() == pytest.approx(float(wanted), rel=1e-5)  # the reaches of checkerboards start at zero
    flow.boards[0][0].reach[...] = jnp.asarray(3.0)
    flow.halves[0][0].reach[...] = jnp.asarray(7.0)
    assert flow.penalty() == pytest.approx(float(wanted) + 9, rel=1e-5)
    batch = {'image': jnp.zeros((4, *SHAPE), int), 'key': jax.random.split(jax.random.key(0), 4)}
    total, scalars = family.loss({'flow': flow}, batch, jax.random.key(0), 0)
    share = 0.5 * (wanted + 9) / (32 * np.log(2))
    assert total - scalars['loss'] == pytest.approx(float(share), rel=1e-3)


def test_images_that_cannot_be_halved_and_penalties_of_nothing_are_refused():
    with pytest.raises(UserError, match=r'3 scales \(network.scales\).*divisible by 4; these have 6×4'):
        make((6, 4, 1), scales=3)
    resolved = configs.resolve({'family': {'name': 'normalizing_flow', 'scale_penalty': 1.0}})
    with pytest.raises(UserError, match='network.name=couplings has no scales to penalise'):
        normalizing_flow.NormalizingFlow(resolved, DataSpec('pixels', SHAPE, levels=5)).networks(nnx.Rngs(0))
