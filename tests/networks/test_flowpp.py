"""Flow++: it returns, its volume is that of the Jacobian, its density integrates to one, its size is the code's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from randomised import disturbed
from scipy import integrate, stats

from genbench import config as configs
from genbench import networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import dequantisation, normalizing_flow
from genbench.families.spaces import Pixels
from genbench.networks import flowpp

SIZES = {'channels': 4, 'blocks': 1, 'components': 3, 'heads': 2}
SHAPE = (2, 4, 1)


def make(shape=SHAPE, forms=None, **options):
    options = {'margin': 0.05, 'dropout': 0.0, 'reversible': False, **SIZES, **options}
    return flowpp.Flow(shape, forms or {}, rngs=nnx.Rngs(0), **options)


def images(shape=SHAPE, count=16):
    return jax.random.uniform(jax.random.key(2), (count, *shape), minval=-1, maxval=1)


@pytest.fixture(scope='module')
def fitted():
    """(flow with random parameters, images, their vectors and log-determinants)."""
    flow, x = disturbed(make(), 0.1), images()
    return flow, x, *jax.jit(lambda x: flow(x))(x)


def test_the_inverse_returns_to_the_image_in_single_precision(fitted):
    flow, x, z, _ = fitted
    np.testing.assert_allclose(jax.jit(lambda z: flow.inverse(z))(z), x, atol=1e-4)


def test_the_log_determinant_is_that_of_the_jacobian(fitted):
    flow, x, _, log_det = fitted
    one = lambda v: flow(v.reshape(1, *SHAPE))[0][0]  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one)))(x.reshape(16, -1))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobians, np.float64))[1], atol=1e-3)


def test_a_mixture_is_that_of_scipy_and_its_inverse_returns():
    """Also far in the tails, where the distribution function is 0 or 1 in single precision."""
    weights, means, log_scales = np.array([0.1, 0.2, 1.0]), np.array([-1.0, 0.0, 1.0]), np.array([-3.0, 0.0, 0.2])
    x = np.linspace(-40, 40, 101)
    y, slope = flowpp.logit_of_mixture(jnp.asarray(x, jnp.float32), weights, means, log_scales)
    shares, parts = (
        np.exp(weights) / np.exp(weights).sum(),
        [stats.logistic(*pair) for pair in zip(means, np.exp(log_scales), strict=True)],
    )
    below, above = (sum(s * getattr(p, name)(x) for s, p in zip(shares, parts, strict=True)) for name in ('cdf', 'sf'))
    density = sum(s * p.pdf(x) for s, p in zip(shares, parts, strict=True))
    np.testing.assert_allclose(y, np.log(below) - np.log(above), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope, np.log(density) - np.log(below) - np.log(above), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(flowpp.inverse_of_mixture(y, weights, means, log_scales), x, rtol=1e-4, atol=1e-4)


def test_the_density_of_a_step_integrates_to_one():
    """Of the value that moves, given each of three values that stay."""
    step = flowpp.Step((1, 1, 1), components=3, width=4, blocks=1, heads=2, dropout=0.0, rngs=nnx.Rngs(0))
    disturbed(step, 0.3)
    ticks = np.linspace(-60, 60, 40_001)
    for kept in (-1.0, 0.0, 2.0):
        x = jnp.asarray(np.stack([np.full_like(ticks, kept), ticks], axis=-1)[:, None, None], jnp.float32)
        y, log_det = jax.jit(lambda x: step(x))(x)
        own = jnp.log(jnp.abs(step.scale[...][0, 0, 0] * step.matrices[...][0, 0, 0]))  # of the value that stays
        density = jnp.exp(jax.scipy.stats.norm.logpdf(y[:, 0, 0, 0]) + log_det - own)
        assert integrate.trapezoid(np.asarray(density, np.float64), ticks) == pytest.approx(1, abs=1e-3)


def test_a_very_negative_log_scale_keeps_values_and_gradients_finite():
    step = flowpp.Step((1, 1, 1), components=3, width=4, blocks=1, heads=2, dropout=0.0, rngs=nnx.Rngs(0))
    bias = step.network.conv_out.bias
    bias[...] = bias[...].at[-3:].set(-90.0)  # of the three log-scales
    x = images((1, 1, 2), 4)
    loss = lambda step: step(x)[1].sum()  # noqa: E731
    value, slopes = jax.jit(nnx.value_and_grad(loss))(step)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    np.testing.assert_allclose(jax.jit(lambda x: step.inverse(step(x)[0]))(x), x, atol=1e-3)


def test_fitting_normalises_values_and_layers():
    step = flowpp.Step((2, 2, 1), components=3, width=4, blocks=1, heads=2, dropout=0.0, rngs=nnx.Rngs(0))
    x = images((2, 2, 2), 64) ** 3
    step(x, fit=True)
    values = x * step.scale[...] + step.shift[...]
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0), 1, rtol=1e-3)
    h = step.network.conv_in(step._mixed(values, step.matrices[...])[0], False)
    np.testing.assert_allclose(h.std((0, 1, 2)), 1, rtol=1e-3)


def test_reversible_gradients_are_those_of_ordinary_calls(fitted):
    plain, x, *_ = fitted
    reversible = make(reversible=True)
    nnx.update(reversible, nnx.state(plain))

    def slopes(flow):
        graph, params = nnx.split(flow)

        def loss(params, x):
            z, log_det = nnx.merge(graph, params)(x)
            return (jax.scipy.stats.norm.logpdf(z).sum(1) + log_det).mean()

        return jax.jit(jax.grad(loss))(params, x)

    for one, other in zip(*(jax.tree.leaves(slopes(flow)) for flow in (plain, reversible)), strict=True):
        assert np.abs(one - other).max() <= 1e-3 * max(0.01, np.abs(one).max())


def test_places_in_the_bins_have_the_density_that_the_dequantiser_states():
    """log q(u) = log N(ε) − log |det du/dε|."""
    network = disturbed(flowpp.Dequantiser((2, 2, 1), rngs=nnx.Rngs(0), **SIZES), 0.1)
    x, noise = images((2, 2, 1), 5), jax.random.normal(jax.random.key(3), (5, 2, 2, 1))
    u, log_q = network(x, noise)
    assert (u > 0).all() and (u < 1).all()
    one = lambda x, v: network(x[None], v.reshape(1, 2, 2, 1))[0].ravel()  # noqa: E731
    jacobians = jax.jit(jax.vmap(jax.jacfwd(one, 1)))(x, noise.reshape(5, 4))
    wanted = stats.norm.logpdf(noise).sum((1, 2, 3)) - np.linalg.slogdet(np.asarray(jacobians, np.float64))[1]
    np.testing.assert_allclose(log_q, wanted, atol=1e-4)


def test_the_mean_weight_over_all_noise_is_the_probability_of_the_image(monkeypatch):
    """By the midpoint rule for the noise of two pixels, on a mesh whose points are dense around 0.

    The logits of the two pixels are independent and normal.
    """
    levels, margin, image, reach, count = 5, 0.02, np.array([0, 3]).reshape(1, 1, 2, 1), 4.4, 80
    resolved = configs.resolve({
        'family': {'name': 'normalizing_flow', 'dequantisation': 'variational', 'dequantiser_channels': 4,
                   'dequantiser_blocks': 1, 'dequantiser_components': 2},
        'network': {'name': 'maf', 'layers': 0, 'margin': margin},
    })  # fmt: skip
    family = normalizing_flow.NormalizingFlow(resolved, DataSpec('pixels', (1, 2, 1), levels=levels))
    found = family.networks(nnx.Rngs(0))
    disturbed(found['dequantiser'], 0.1)
    t = ((np.arange(count) + 0.5) / count * 2 - 1) * reach
    mesh = np.stack(np.meshgrid(np.sinh(t), np.sinh(t)), axis=-1)
    noise = jnp.asarray(mesh.reshape(-1, 1, 2, 1), jnp.float32)
    slope = np.multiply.outer(np.cosh(t), np.cosh(t)).ravel() * (2 * reach / count) ** 2
    monkeypatch.setattr(dequantisation.rng, 'normal', lambda keys, name, shape: noise)
    (likelihood,), keys = family.likelihoods, jax.random.split(jax.random.key(0), len(noise))
    pixels = jnp.broadcast_to(image, noise.shape)
    log_p = jax.jit(lambda keys: likelihood.log_prob(found, pixels, None, keys)['log_prob'])(keys)
    density = np.exp(np.asarray(log_p, np.float64) + stats.norm.logpdf(noise).sum((1, 2, 3)))
    edges = margin + (1 - 2 * margin) * np.arange(levels + 1) / levels
    masses = np.diff(stats.norm.cdf(np.log(edges / (1 - edges))))[image.ravel()]
    assert (density * slope).sum() == pytest.approx(masses.prod(), rel=1e-4)
    assert likelihood.protocol['dequantisation'] == 'variational' and likelihood.kind == 'lower_bound'
    assert family.updates[0].networks == ('flow', 'dequantiser')


def test_the_size_on_cifar_10_is_that_of_the_official_code():
    """Together with its dequantiser."""
    spec = DataSpec('images', (32, 32, 3), levels=256)
    family = normalizing_flow.NormalizingFlow(configs.resolve(configs.read_file('cifar10/flowpp')), spec)
    shapes = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes, nnx.Param))) == 31_443_440


def test_channels_that_the_heads_of_a_dequantiser_do_not_divide_are_refused():
    resolved = configs.resolve({'family': {'name': 'normalizing_flow', 'dequantiser_channels': 30}})
    space = Pixels(DataSpec('images', SHAPE, levels=5))
    with pytest.raises(UserError, match='family.dequantiser_channels is 30; it should be divisible by 4'):
        networks.dequantiser(resolved.family, space, nnx.Rngs(0))


@pytest.mark.parametrize(
    ('shape', 'options', 'message'),
    [
        ((4, 6, 1), {}, 'whose width is divisible by 4; these have 4×6'),
        (SHAPE, {'forms': {'label': Form('classes', (), 3)}}, 'flowpp takes no conditions'),
        (SHAPE, {'reversible': True, 'dropout': 0.5}, 'steps with dropout have no inverse'),
        (SHAPE, {'heads': 3}, 'network.channels is 4; it should be divisible by network.heads'),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(UserError, match=message):
        make(shape, **options)
