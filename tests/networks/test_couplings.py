"""Invertible layers: they return, their volumes are those of the Jacobian, their densities integrate to one."""

import integrals
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import couplings, glow, invertible

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


GLOW = {'pixels': 'plain', 'mixing': 'rotation', 'scale': 'sigmoid', 'normalised': True, 'prior': 'learned'}
LAYERS = {
    'logit': (lambda: couplings.Logit(0.05), (2, 2, 3)),
    'normalisation': (lambda: couplings.Normalisation(3), (2, 2, 3)),
    'mixing': (lambda: couplings.Mixing(6), (2, 1, 6)),
    'mixing from a rotation': (lambda: couplings.Mixing(6, 3), (2, 1, 6)),
    'coupling': (lambda: couplings.Coupling(4, {}, width=8, dropout=0.0, rngs=nnx.Rngs(0)), (2, 2, 4)),
    'coupling of odd channels': (lambda: couplings.Coupling(3, {}, width=8, dropout=0.0, rngs=nnx.Rngs(0)), (2, 2, 3)),
    'step': (lambda: couplings.Step(4, {}, width=8, rngs=nnx.Rngs(0)), (2, 2, 4)),
    'flow': (make_flow, (4, 4, 2)),
    'flow of Glow': (lambda: make_flow((4, 4, 1), **GLOW), (4, 4, 1)),
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

    def flow(x):
        y, log_det = logit(x)
        for step in steps:
            y, change = step(y)
            log_det += change
        return y, log_det

    total, values = integrals.of_flow(flow, 1 / (1 - 2 * 0.05), shape=(1, 1, 2))  # the logit maps it onto the plane
    assert values.max() > 3 * values.mean()
    assert total == pytest.approx(1, abs=1e-3)


def test_squeezing_keeps_neighbours_together():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(couplings.squeeze(x)[0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(couplings.unsqueeze(couplings.squeeze(x)), x)
    x = jnp.arange(108.0).reshape(1, 9, 6, 2)
    np.testing.assert_array_equal(couplings.squeeze(x, 3)[0, 2, 1], x[0, 6:9, 3:6].ravel())
    np.testing.assert_array_equal(couplings.unsqueeze(couplings.squeeze(x, 3), 3), x)


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


@pytest.mark.parametrize(
    ('forms', 'options', 'message'),
    [
        ({}, {'dropout': 0.5}, 'Glow have no dropout, but network.dropout is 0.5'),
        ({}, {'margin': 0.2}, 'only network.pixels=logits has a margin'),
        ({'label': Form('classes', (), 3)}, {'prior': 'standard'}, 'do not see conditions; use network.prior=learned'),
    ],
)
def test_couplings_of_glow_refuse_what_they_would_ignore(forms, options, message):
    with pytest.raises(UserError, match=message):
        make_flow((4, 4, 2), forms, **{**GLOW, **options})


def test_rotations_are_the_same_in_every_version_of_the_libraries():
    """Their permutation and signs are in no checkpoint. Recorded with NumPy 2.4 and SciPy 1.17."""
    order, signs, rest = invertible.rotation(6, 3)
    assert order.tolist() == [3, 0, 1, 5, 4, 2] and signs.tolist() == [1, -1, -1, -1, -1, -1]
    np.testing.assert_allclose(np.diag(rest), [-0.4513, -0.2893, 0.29104, 0.18394, -0.11817, 0.38379], atol=1e-5)


def test_networks_of_glow_compute_in_the_type_that_is_asked():
    """And the values that they transform stay in float32."""
    layer = couplings.Coupling(4, {}, width=8, dtype='bfloat16', normalised=True, rngs=nnx.Rngs(0))
    program = str(jax.make_jaxpr(lambda x: layer(x))(images((2, 2, 4))))
    products = [line for line in program.splitlines() if 'conv_general_dilated' in line or 'dot_general' in line]
    assert len(products) == 3 and all(':bf16[' in line.split('=')[0] for line in products)
    assert layer(images((2, 2, 4)))[0].dtype == jnp.float32


def test_a_fresh_mixing_is_a_rotation_and_its_numbers_differ():
    x = images((2, 2, 6))
    one, other = (couplings.Mixing(6, number)(x)[0] for number in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(one, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    assert np.abs(one - other).max() > 0.1
    place, sign, rest = invertible.rotation(6, 0)
    lower, upper = np.tril(rest, -1) + np.eye(6), np.triu(rest, 1) + np.diag(sign * np.exp(np.diag(rest)))
    np.testing.assert_allclose(one, x @ (np.eye(6)[:, place] @ lower @ upper), atol=1e-5)


def test_the_depth_of_glow_returns_to_the_image_in_single_precision():
    """Three scales of 32 steps after data-dependent initialisation, with couplings that move what they see."""
    flow = couplings.Flow((8, 8, 1), {}, rngs=nnx.Rngs(0), **{**FLOW, **GLOW, 'multipliers': (1, 1, 1), 'steps': 32})
    x, rng = images((8, 8, 1), 16), np.random.default_rng(0)
    for steps in flow.scales:
        for step in steps:
            kernel = step.coupling.network.output.conv.kernel
            kernel[...] = jnp.asarray(0.05 * rng.normal(size=kernel.shape), jnp.float32)
    flow(x, fit=True)
    z, _ = flow(x)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(flow.inverse(z), x, atol=1e-4)


def test_fitting_normalises_inside_the_networks_of_couplings():
    network, x = glow.Normalised(3, 4, width=8, rngs=nnx.Rngs(0)), images((4, 4, 3), 16)
    network(x, fit=True)
    h = np.asarray(network.norms[0](network.conv_in(x))[0])
    np.testing.assert_allclose(h.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(h.std((0, 1, 2)), 1, rtol=1e-3)
    np.testing.assert_array_equal(network(x, fit=False), 0)


def test_a_convolution_sees_the_edges():
    """Of a black image only the channel beyond the edges counts: 3 of 9 pixels of a window at a side, 5 at a corner."""
    conv = glow.EdgeConv(2, 1, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(conv(jnp.zeros((1, 3, 3, 2)))[0, :, :, 0], [[5, 3, 5], [3, 0, 3], [5, 3, 5]])


def test_the_prior_of_glow_is_normal_with_mean_and_scale_from_what_stays_and_from_the_label(double):
    """log N(ε) + log |det| is the log-density of the normal, whose parameters are read off by hand."""
    prior = scrambled(lambda: glow.SplitPrior(0, 2, {'label': Form('classes', (), 3)}, rngs=nnx.Rngs(0)))
    moved, label = images((2, 2, 2)), jnp.array([0, 1, 2])
    z, change = prior(moved, None, {'label': label})
    table = prior.own[...] + prior.classes.entries['label'].embedding[...][label]
    wanted = jax.scipy.stats.norm.logpdf(
        moved, *(part[:, None, None] for part in (table[:, :2], jnp.exp(table[:, 2:])))
    )
    found = jax.scipy.stats.norm.logpdf(z).sum((1, 2, 3)) + change
    np.testing.assert_allclose(found, wanted.sum((1, 2, 3)), rtol=1e-6)


def official_count(width, steps):
    """Parameters of Glow's official code on 32×32 colours in three scales, without and with its learned top."""

    def step(c):
        first, middle = 9 * (c // 2 + 1) * width + 2 * width, width * width + 2 * width
        return 2 * c + c * c + first + middle + 9 * (width + 1) * c + 2 * c

    split = sum(9 * (c // 2 + 1) * c + 2 * c for c in (12, 24))
    return steps * sum(step(c) for c in (12, 24, 48)) + split, 9 * (2 * 48 + 1) * 2 * 48 + 4 * 48


def test_the_size_of_glow_on_cifar_10_is_that_of_the_official_code():
    """Except for the top: there, the code convolves zeros, which leaves 96 numbers of 84,000 and the edges' weights."""
    options = {**FLOW, **GLOW, 'channels': 512, 'multipliers': (1, 1, 1), 'steps': 32}
    shapes = nnx.eval_shape(lambda: couplings.Flow((32, 32, 3), {}, rngs=nnx.Rngs(0), **options))
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param)))
    below, top = official_count(512, 32)
    assert (found, below + top) == (44_519_700, 44_603_604) and found == below + 96
