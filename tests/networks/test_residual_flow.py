"""Residual Flow: bounded norms, log-determinants that are right on average, an inverse that returns, a known size."""

import math

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from randomised import disturbed
from scipy import linalg, stats

from genbench import config as configs
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import normalizing_flow
from genbench.networks import layers, lipschitz, log_determinants, residual_flow

SMALL = {**residual_flow.DEFAULTS, 'channels': 6, 'blocks': (1, 1), 'dense_blocks': 1, 'dense_width': 5}
SHAPE = (2, 4, 1)


def make(shape=SHAPE, forms=None, **options):
    return residual_flow.Flow(shape, forms or {}, rngs=nnx.Rngs(0), **{**SMALL, **options})


def images(shape=SHAPE, count=3):
    return jax.random.uniform(jax.random.key(2), (count, *shape), minval=-0.9, maxval=0.9)


@pytest.fixture(scope='module')
def flow():
    return disturbed(make(), 0.5)  # kernels whose norms exceed the bound, so that the bound holds


@pytest.mark.parametrize('kernel', [1, 3])
def test_the_norm_of_a_convolution_is_that_of_its_matrix_on_whole_images(kernel):
    """By numpy's singular values of the matrix of all pixels; a smaller norm than the bound stays as it is."""
    shape, norms = (3, 4, 2), []
    for scale in (3.0, 0.01):
        conv = lipschitz.Conv(shape, 5, kernel=kernel, bound=0.7, rngs=nnx.Rngs(0))
        conv.kernel[...] = scale * conv.kernel[...]
        found = jax.jit(lambda conv=conv: conv.bounded(False))()
        units = jnp.eye(24).reshape(24, *shape)
        matrix = layers.convolve(units, found).reshape(24, -1)
        norms.append(np.linalg.norm(np.asarray(matrix, np.float64), 2))
        assert (np.abs(found - conv.kernel[...]).max() > 0) == (scale == 3.0)
    assert norms[0] == pytest.approx(0.7, rel=1e-3) and norms[1] < 0.1


def test_a_singular_value_that_has_grown_is_found():
    """From a start that is nearly orthogonal to its vector."""
    conv = lipschitz.Conv((1, 1, 2), 2, kernel=1, bound=1.0, rngs=nnx.Rngs(0))
    conv.kernel[...] = jnp.diag(jnp.array([0.9, 3.0]))[None, None]
    for start in ([1.0, 1e-6], [1.0, 0.0]):
        conv.right[...] = jnp.array(start).reshape(1, 1, 1, 2)
        assert np.linalg.norm(conv.bounded(False)[0, 0], 2) == pytest.approx(1.0, rel=1e-3)


def test_lipswish_has_a_slope_of_at_most_one():
    """So that a block whose layers have the norms that they may have is still invertible."""
    x = np.linspace(-20, 20, 100_001)
    for beta in (0.1, 1.0, 8.0):
        y = x / (1 + np.exp(-beta * x)) / lipschitz.SLOPE
        assert 0.99 < np.abs(np.diff(y) / np.diff(x)).max() < 1


def test_the_gradient_of_a_bounded_kernel_passes_through_its_norm():
    """d‖W‖ / dW = u vᵀ, with singular vectors by numpy."""
    conv = lipschitz.Conv((1, 1, 4), 3, kernel=1, bound=0.5, rngs=nnx.Rngs(0))
    for _ in range(9):
        conv.bounded(True)
    kernel = np.asarray(conv.kernel[...][0, 0], np.float64)
    slope = np.random.default_rng(0).normal(size=(4, 3))
    graph, state = nnx.split(conv, nnx.Param, ...)[0], nnx.split(conv, nnx.Param, ...)[1:]
    loss = lambda params: (nnx.merge(graph, params, state[1]).bounded(False)[0, 0] * slope).sum()  # noqa: E731
    found = jax.jit(jax.grad(loss))(state[0])['kernel'][...][0, 0]
    left, sizes, right = np.linalg.svd(kernel)
    through = (slope * kernel).sum() / sizes[0] ** 2 * np.outer(left[:, 0], right[0])
    np.testing.assert_allclose(found, 0.5 * (slope / sizes[0] - through), rtol=1e-3, atol=1e-3)


def test_the_inverse_returns_to_the_image_in_single_precision(flow):
    x = images()
    z, _ = jax.jit(lambda x: flow(x))(x)
    np.testing.assert_allclose(jax.jit(lambda z: flow.inverse(z))(z), x, atol=1e-4)


def test_the_log_determinant_of_few_values_is_that_of_the_jacobian_of_the_whole_flow(flow):
    x = images()
    one = lambda v: flow(v.reshape(1, *SHAPE))[0][0]  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(3, -1))
    log_det = jax.jit(lambda x: flow(x)[1])(x)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=1e-3)


def linear(matrix, x):
    return x @ matrix


@pytest.fixture(scope='module')
def matrix():
    drawn = np.random.default_rng(3).normal(size=(4, 4))
    return 0.8 * drawn / np.linalg.norm(drawn, 2)


def estimates(matrix, certain, count=100_000):
    """(values, mean gradient by the matrix) of many estimates for one linear map."""
    rng = np.random.default_rng(4)
    x, noise = jnp.zeros((count, 4)), jnp.asarray(rng.normal(size=(count, 4)), jnp.float32)
    counts = log_determinants.poisson(*jnp.asarray(rng.uniform(size=(2, count)), jnp.float32))

    def total(matrix):
        _, found = log_determinants.estimate(linear, matrix, x, noise, counts, certain, 4)
        return found.mean(), found

    (_, found), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.asarray(matrix, jnp.float32))
    return np.asarray(found, np.float64), slope


def test_estimates_and_their_gradients_are_right_on_average(matrix):
    """Against log det (I + A) and its derivative (I + A)⁻ᵀ, by SciPy."""
    truth = np.log(linalg.det(np.eye(4) + matrix))
    for certain in (2, 20):
        found, slope = estimates(matrix, certain)
        assert found.mean() == pytest.approx(truth, abs=4 * found.std() / math.sqrt(len(found)))
        assert 0.1 < found.std() < 5
        np.testing.assert_allclose(slope, linalg.inv(np.eye(4) + matrix).T, atol=0.03)


def test_the_number_of_terms_is_poisson_and_weights_undo_its_tails():
    uniform = jnp.asarray((np.arange(200_000) + 0.5) / 200_000, jnp.float32)
    counts = np.asarray(log_determinants.poisson(uniform, jnp.zeros(len(uniform))))
    shares = np.bincount(counts, minlength=12)[:12] / len(counts)
    np.testing.assert_allclose(shares, stats.poisson.pmf(np.arange(12), 2), atol=1e-4)
    for k, wanted in ((1, 1.0), (2, 1.0), (3, 1 / (1 - math.exp(-2))), (4, 1 / (1 - 3 * math.exp(-2)))):
        assert log_determinants.weight(jnp.array(k), jnp.array(9), 2) == pytest.approx(wanted, rel=1e-5)
    assert log_determinants.weight(jnp.array(5), jnp.array(2), 2) == 0


def test_numbers_of_terms_beyond_the_grid_of_float32_occur():
    """N ≥ k where a uniform number of both parts, in double precision, lies above P(N < k)."""
    fine = np.linspace(0, 0.99, 50)
    found = log_determinants.poisson(jnp.full(50, 1 - 2**-23), jnp.asarray(fine, jnp.float32))
    wanted = stats.poisson.isf(2.0**-23 * (1 - fine), 2)
    np.testing.assert_array_equal(found, wanted)
    assert set(wanted) >= {13, 14, 15}


def test_evaluation_of_many_values_estimates_what_the_jacobian_gives():
    """For each image on its own, whatever the others in its batch are."""
    few, many = (disturbed(make(blocks=(1,), dense_blocks=0, exact_dims=dims), 0.5) for dims in (8, 0))
    x = jnp.broadcast_to(images(count=1), (4000, *SHAPE))
    keys = jax.random.split(jax.random.key(5), 4000)
    score = jax.jit(lambda x, keys: many(x, keys=keys)[1])
    found, wanted = np.asarray(score(x, keys), np.float64), float(few(x[:1])[1][0])
    assert found.mean() == pytest.approx(wanted, abs=4 * found.std() / math.sqrt(4000)) and found.std() > 0.05
    others = score(x.at[1:].multiply(0.5), keys.at[1:].set(jax.random.split(jax.random.key(6), 3999)))
    assert others[0] == pytest.approx(found[0], rel=1e-4) and np.abs(others[1:] - found[1:]).max() > 0.1
    with pytest.raises(ValueError, match='needs one key per image'):
        many(x[:1])


def test_a_density_of_two_dimensions_integrates_to_one():
    flow = disturbed(make((1, 2, 1), blocks=(2,)), 0.5)
    total, values = integrals.of_flow(flow, 1 / (1 - 2 * 0.05))  # the logit maps it onto the plane
    assert total == pytest.approx(1, abs=1e-3) and values.max() > 3 * values.mean()


def test_fitting_normalises_the_vectors_and_keeps_singular_vectors():
    flow, x = make(), images(count=64) ** 3
    before = flow.scales[0][0].residual.convs[0].right[...]

    @nnx.jit
    def fitted(flow, x):
        flow(x, fit=True)
        return flow(x)[0]

    np.testing.assert_allclose(fitted(flow, x).mean(0), 0, atol=1e-3)
    assert np.abs(flow.scales[0][0].residual.convs[0].right[...] - before).max() > 1e-3


def test_likelihoods_are_bounds_of_few_values_and_estimates_of_many():
    for dims, kind in ((8, 'lower_bound'), (7, 'estimate')):
        network = {**SMALL, 'name': 'residual_flow', 'blocks': (1,), 'dense_blocks': 0, 'exact_dims': dims}
        family, evaluation = {'name': 'normalizing_flow'}, {'dequantisation_draws': 3}
        resolved = configs.resolve({'family': family, 'network': network, 'evaluation': evaluation})
        family = normalizing_flow.NormalizingFlow(resolved, DataSpec('tiny', SHAPE, levels=5))
        found = family.likelihoods
        assert [(one.method, one.kind) for one in found] == [('density_1', kind), ('density_3', kind)]
        assert ('certain_terms' in found[0].protocol) == (kind == 'estimate')
    assert family.updates[0].splits  # micro-batches may share its singular vectors, which depend on kernels alone
    networks, keys = family.networks(nnx.Rngs(0)), jax.random.split(jax.random.key(1), 50)
    pixels = jnp.ones((50, *SHAPE), jnp.int32)
    parts = jax.jit(lambda keys: found[0].log_prob(networks, pixels, None, keys))(keys)
    assert parts['log_prob'].shape == (50,) and (parts['estimator_error'] != 0).all()
    assert found[0].errors == ('estimator_error',) and found[1].errors == ()


def test_the_error_of_an_estimate_is_its_distance_from_the_jacobian():
    """The root mean square over images of half the difference of two estimates, against determinants."""
    found, keys, pixels = [], jax.random.split(jax.random.key(1), 1000), jnp.ones((1000, *SHAPE), jnp.int32)
    for dims in (8, 0):
        network = {**SMALL, 'name': 'residual_flow', 'blocks': (1,), 'dense_blocks': 0, 'exact_dims': dims}
        resolved = configs.resolve({'family': {'name': 'normalizing_flow'}, 'network': network})
        family = normalizing_flow.NormalizingFlow(resolved, DataSpec('tiny', SHAPE, levels=5))
        networks = {name: disturbed(module, 0.5) for name, module in family.networks(nnx.Rngs(0)).items()}
        score = family.likelihoods[0].log_prob
        found.append(jax.jit(lambda keys: score(networks, pixels, None, keys))(keys))  # noqa: B023
    exact, estimated = found
    wanted = np.sqrt(np.square(estimated['log_prob'] - exact).mean())
    assert np.sqrt(np.square(estimated['estimator_error']).mean()) == pytest.approx(wanted, rel=0.15)


def official_count(channels, blocks, dense, width):
    """Parameters of the official code on 32×32 colours, less its unused numbers of terms: two for each block."""
    total, depth = 2 * 3, 3
    for scale, count in enumerate(blocks):
        depth = 3 * 4**scale
        outer = 9 * depth * channels
        total += count * (2 * outer + channels + depth + channels**2 + channels + 3 + 2 * depth)
    values = 32 * 32 * 3
    return total - 1 + dense * (2 * values * width + width**2 + 2 * width + values + 3 + 2 * values)


def test_the_size_on_cifar_10_is_that_of_the_official_code():
    """The formula gives it for the config, and the size of the network at two blocks a scale."""
    network = configs.read_file('cifar10/residual_flow')['network']
    options = {key: value for key, value in network.items() if key != 'name'} | {'blocks': (2, 2, 2)}
    shapes = nnx.eval_shape(lambda: make((32, 32, 3), **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    assert found == official_count(512, (2, 2, 2), 4, 128)
    sizes = (network[key] for key in ('channels', 'blocks', 'dense_blocks', 'dense_width'))
    assert official_count(*sizes) == 25_174_129


@pytest.mark.parametrize(
    ('shape', 'options', 'message'),
    [
        ((3, 4, 1), {}, r'2 scales \(network.blocks\) needs images .* divisible by 2; these have 3×4'),
        (SHAPE, {'forms': {'label': Form('classes', (), 3)}}, 'residual_flow takes no conditions'),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        make(shape, **options)
