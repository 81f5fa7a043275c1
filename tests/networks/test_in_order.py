"""PixelCNN and the transformer over pixels: what a step sees, what sampling keeps, and the published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.errors import UserError
from genbench.networks import pixel_cnn, pixel_transformer

SHAPE, LEVELS = (4, 4, 2), 5
CNN = {'channels': 4, 'blocks': 1, 'scales': 2, 'dropout': 0.0}
TRANSFORMER = {'depth': 2, 'width': 8, 'heads': 2, 'expansion': 2, 'dropout': 0.0}


def scrambled(build, scale=0.5):
    rng, module = np.random.default_rng(1), nnx.eval_shape(build)
    draw = lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape))  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module


@pytest.fixture(scope='module')
def cnn():
    return scrambled(lambda: pixel_cnn.PixelCNN(SHAPE, 3, {}, rngs=nnx.Rngs(0), **CNN))


@pytest.fixture(scope='module')
def transformer():
    return scrambled(lambda: pixel_transformer.PixelTransformer(SHAPE, 3, LEVELS, {}, rngs=nnx.Rngs(0), **TRANSFORMER))


def test_a_pixel_depends_on_every_pixel_before_it_and_on_no_other(cnn):
    """By the Jacobian, between pixels in raster order. At 4×4 the receptive field covers everything before."""
    x = jax.random.normal(jax.random.key(0), SHAPE)
    jacobian = jax.jit(jax.jacrev(lambda x: cnn(x[None])[0]))(x)
    found = np.abs(np.asarray(jacobian)).max((2, 5)).reshape(16, 16) > 0
    np.testing.assert_array_equal(found, np.tri(16, k=-1, dtype=bool))


def test_a_value_depends_on_every_value_before_it_and_on_no_other(transformer):
    x = jax.random.randint(jax.random.key(0), SHAPE, 0, LEVELS)
    changed = jax.vmap(lambda place: x.reshape(-1).at[place].set((x.reshape(-1)[place] + 1) % LEVELS))(jnp.arange(32))
    h = np.asarray(jax.jit(transformer)(jnp.concatenate([x[None], changed.reshape(-1, *SHAPE)]))).reshape(33, 32, 3)
    moved = (h[1:] != h[:1]).any(-1)  # (changed place, place)
    np.testing.assert_array_equal(moved, np.tri(32, k=-1, dtype=bool).T)


def test_steps_with_kept_keys_and_values_equal_the_whole_network(transformer):
    x = jax.random.randint(jax.random.key(1), (3, *SHAPE), 0, LEVELS)

    def one(kept, number):
        h, kept = transformer.step(x, number, kept, None, 0)
        return kept, h

    _, found = jax.jit(lambda start: jax.lax.scan(one, start, jnp.arange(32)))(transformer.start(3))
    np.testing.assert_allclose(found.swapaxes(0, 1), transformer(x).reshape(3, 32, 3), atol=1e-5)


@pytest.mark.parametrize('stride', [1, 2, -2])
def test_weights_are_normalised_and_fitted(stride):
    conv = pixel_cnn.Conv(3, 2, (2, 3), centred=True, stride=stride, scale=0.1, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (8, 6, 4, 3)) + 2
    y = conv(x, fit=True)
    assert y.shape == (8, *(size // stride if stride > 0 else 2 * size for size in (6, 4)), 2)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 1, 2)), 0.1, rtol=1e-4)
    conv.kernel[...] *= 7
    np.testing.assert_allclose(conv(x), y, atol=1e-6)


def test_doubling_is_the_transpose_of_halving():
    """⟨halve(x), y⟩ = ⟨x, double(y)⟩ for the same window, turned by 180° and with inputs and outputs swapped.

    Halving looks up from a pixel, so its transpose would look down; doubling is moved by the one row that this takes.
    """
    halve, double = (pixel_cnn.Conv(2, 2, (2, 3), centred=True, stride=stride, rngs=nnx.Rngs(0)) for stride in (2, -2))
    kernel = jax.random.normal(jax.random.key(0), (2, 3, 2, 2))
    halve.kernel[...], double.kernel[...] = kernel, kernel[::-1, ::-1].swapaxes(2, 3)
    halve.scale[...] = jnp.sqrt(jnp.square(kernel).sum((0, 1, 2)))
    double.scale[...] = jnp.sqrt(jnp.square(double.kernel[...]).sum((0, 1, 2)))
    x, y = (jax.random.normal(jax.random.key(1), (1, size, size, 2)) for size in (8, 4))
    assert float(jnp.vdot(halve(x), y)) == pytest.approx(float(jnp.vdot(x[:, :-1], double(y)[:, 1:])), rel=1e-4)


def official_count(filters, resnets, colours, outputs):
    """Parameters of the official code for three resolutions, layer by layer: kernel, gain and bias of each."""

    def conv(height, width, before, after):
        return height * width * before * after + 2 * after

    def block(height, width, shortcut):
        inner = conv(1, 1, 2 * shortcut, filters) if shortcut else 0
        windows = conv(height, width, 2 * filters, filters) + conv(height, width, 2 * filters, 2 * filters)
        return inner + windows

    first = sum(conv(*window, colours + 1, filters) for window in ((2, 3), (1, 3), (2, 1)))
    inward = 3 * resnets * (block(2, 3, 0) + block(2, 2, filters))
    resampling = 4 * (conv(2, 3, filters, filters) + conv(2, 2, filters, filters))
    outward = (3 * resnets + 2) * (block(2, 3, filters) + block(2, 2, 2 * filters))
    return first + inward + resampling + outward + conv(1, 1, filters, outputs)


def test_the_size_on_cifar_10_is_that_of_the_official_code():
    build = lambda: pixel_cnn.PixelCNN(  # noqa: E731
        (32, 32, 3), 100, {}, channels=160, blocks=5, scales=3, dropout=0.5, rngs=nnx.Rngs(0)
    )
    found = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))
    assert found == official_count(160, 5, 3, 100) == 53_659_080


def test_images_that_cannot_be_halved_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match='2 resolutions .*divisible by 2; these have 3×4'):
        pixel_cnn.PixelCNN((3, 4, 1), 3, {}, rngs=nnx.Rngs(0), **CNN)
    with pytest.raises(UserError, match='network.width is 8; it should be divisible by network.heads .3.'):
        pixel_transformer.PixelTransformer(SHAPE, 3, LEVELS, {}, rngs=nnx.Rngs(0), **{**TRANSFORMER, 'heads': 3})
