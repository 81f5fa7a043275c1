"""StyleGAN2's networks: published sizes, modulated convolutions by their grouped definition, rates and styles."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import flops, networks
from genbench.data.conditions import Form
from genbench.data.spec import DataSpec
from genbench.networks import equalised

CIFAR = {'latent': 512, 'features': 512, 'channels': 512, 'multipliers': (1, 1, 1, 1), 'residual': False}
PAPER256 = {'latent': 512, 'features': 512, 'channels': 64, 'multipliers': (1, 2, 4, 8, 8, 8, 8), 'mapping': 8}
FFHQ = {**PAPER256, 'channels': 32, 'multipliers': (1, 2, 4, 8, 16, 16, 16, 16, 16)}
TINY = {'channels': 8, 'multipliers': (1, 2), 'latent': 6, 'features': 5}


def players(size, classes=0, **options):
    config = ConfigDict({**networks.defaults('stylegan2'), **options})
    space = DataSpec('images', (size, size, 3), 256)
    forms = {'label': Form('classes', (), classes)} if classes else {}
    return networks.generator_and_discriminator(config, space, forms, nnx.Rngs(0))


def scrambled(build):
    """Random parameters everywhere, for the strengths of noise start at zero."""
    rng, module = np.random.default_rng(1), nnx.jit(build)()
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module, nnx.Param)))
    return module


@pytest.mark.parametrize(
    ('size', 'classes', 'options', 'generator', 'discriminator'),
    [
        (32, 0, CIFAR, 19_947_539, 20_720_641),
        (32, 10, CIFAR, 20_215_315, 23_089_664),
        (256, 0, PAPER256, 24_767_458, 24_001_089),
        (1024, 0, FFHQ, 30_370_060, 29_012_513),
    ],
)
def test_published_networks_have_their_parameters(size, classes, options, generator, discriminator):
    """The presets of StyleGAN2-ADA's code: cifar 19.95 and 20.72 million (20.22, 23.09), paper256 24.77 and 24.00,
    stylegan2 30.37 and 29.01."""
    built = nnx.eval_shape(lambda: players(size, classes, **options))
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(one, nnx.Param))) for name, one in built.items()
    }
    assert counts == {'generator': generator, 'discriminator': discriminator}


def grouped(x, kernel, styles, demodulate=True):
    """Equations 1 and 3 of Karras et al. 2020 as written: one kernel for each image, one group for each image."""
    own = styles[:, None, None, :, None] * kernel
    if demodulate:
        own = own / jnp.sqrt(jnp.square(own).sum((1, 2, 3), keepdims=True) + 1e-8)
    (count, height, width, inputs), outputs = x.shape, kernel.shape[-1]
    y = jax.lax.conv_general_dilated(
        x.transpose(1, 2, 0, 3).reshape(1, height, width, count * inputs),
        own.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[:3], count * outputs),
        (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=count,
    )  # fmt: skip
    return y.reshape(height, width, count, outputs).transpose(2, 0, 1, 3)


@pytest.fixture(scope='module')
def modulation():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 6, 6, 8), (3, 3, 8, 4), (3, 8)))


@pytest.mark.parametrize('demodulate', [True, False])
def test_a_modulated_convolution_is_its_grouped_definition(demodulate, modulation):
    found, wanted = equalised.modulated(*modulation, demodulate=demodulate), grouped(*modulation, demodulate)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def test_a_modulated_convolution_needs_no_more_work_than_its_grouped_definition(modulation):
    ours, theirs = (flops.count(jax.make_jaxpr(function)(*modulation)) for function in (equalised.modulated, grouped))
    assert ours < theirs


def test_demodulation_makes_the_scale_of_styles_meaningless(modulation):
    x, kernel, styles = modulation
    np.testing.assert_allclose(
        equalised.modulated(x, kernel, 7 * styles), equalised.modulated(x, kernel, styles), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('resample', ['up', 'down'])
def test_resampling_convolutions_are_those_of_numpy(resample):
    """Along one line, whose kernel and filter leave the other axis alone in the middle."""
    line = np.random.default_rng(0).normal(size=8)
    taps, kernel = np.array([1, 3, 3, 1]) / 8, np.array([0.5, -1.0, 2.0])
    x = jnp.asarray(line, jnp.float32)[None, :, None, None] * jnp.ones((1, 8, 8, 1))
    only = jnp.zeros((3, 3, 1, 1)).at[:, 1, 0, 0].set(jnp.asarray(kernel[::-1], jnp.float32))
    found = np.asarray(equalised.convolved(x, only, resample))
    if resample == 'up':
        wide = np.zeros(15)
        wide[::2] = line
        wanted = np.convolve(np.pad(np.convolve(wide, kernel), 1), 2 * taps, 'valid')
        assert found.shape == (1, 16, 16, 1)
        np.testing.assert_allclose(found[0, :, 6, 0], wanted, rtol=1e-4, atol=1e-5)
    else:
        wanted = np.convolve(np.convolve(np.pad(line, 2), taps, 'valid'), kernel, 'valid')[::2]
        np.testing.assert_allclose(found[0, :, 2, 0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('rate', [1.0, 0.01])
def test_a_rate_scales_a_step_of_the_optimizer_and_nothing_else(rate):
    """A fresh layer keeps unit variance; moving every weight by δ moves an output by δ · rate · Σ x / √inputs."""
    layer = equalised.Linear(400, 300, rate=rate, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (50, 400))
    before = layer(x)
    assert np.var(before) == pytest.approx(1, rel=0.05)
    layer.kernel[...] += 0.5
    np.testing.assert_allclose(layer(x) - before, np.broadcast_to(
        0.5 * rate * np.asarray(x).sum(1, keepdims=True) / 20, before.shape), atol=2e-4)  # fmt: skip


def test_the_deviation_of_a_group_is_one_more_channel():
    x = np.random.default_rng(0).normal(size=(6, 2, 2, 5)).astype(np.float32)
    found = np.asarray(equalised.with_deviation(jnp.asarray(x), 3))
    np.testing.assert_array_equal(found[..., :5], x)
    for first in (0, 3):
        wanted = x[first : first + 3].std(0).mean()
        np.testing.assert_allclose(found[first : first + 3, ..., 5], wanted, rtol=1e-4)
    same = equalised.with_deviation(jnp.ones((4, 2, 2, 3)), 4)
    assert np.abs(same[..., 3]).max() < 2e-4


@pytest.fixture(scope='module')
def generator():
    return scrambled(lambda: players(8, **TINY)['generator'])


def test_noise_differs_between_images_and_is_left_out_without_keys(generator):
    z, keys = jnp.ones((2, 6)), jax.random.split(jax.random.key(0), 2)
    call = nnx.jit(lambda generator, z, keys: (generator(z), generator(z, None, keys)))
    plain, noisy = (np.asarray(images) for images in call(generator, z, keys))
    np.testing.assert_allclose(plain[0], plain[1], rtol=1e-4, atol=1e-5)
    assert np.abs(noisy[0] - noisy[1]).max() > 1e-2 and np.abs(noisy[0] - plain[0]).max() > 1e-2
    np.testing.assert_allclose(call(generator, z, keys[::-1])[1], noisy[::-1], rtol=1e-3, atol=1e-3)


def test_a_style_at_any_place_changes_the_image(generator):
    """Two resolutions have four places."""
    assert generator.styles == 4
    w = jnp.repeat(jax.random.normal(jax.random.key(0), (1, 4, 5)), 5, axis=0)
    images = nnx.jit(lambda generator, w: generator.synthesise(w))(generator, w.at[jnp.arange(4), jnp.arange(4)].add(1))
    assert all(np.abs(images[place] - images[4]).max() > 1e-3 for place in range(4))


def test_images_of_all_resolutions_are_enlarged_and_added(generator):
    """Figure 7b, with the styles of the official code: an image takes that of the convolution that follows it.

    Away from the edges, [1, 3, 3, 1] is bilinear interpolation.
    """
    one, w = generator, jax.random.normal(jax.random.key(3), (2, 4, generator.convs[0].styles.kernel.shape[0]))
    h = one.convs[0](jnp.repeat(one.start[...][None], 2, axis=0), w[:, 0])
    low = one.images[0](h, w[:, 1])
    high = one.images[1](one.convs[1](one.up[0](h, w[:, 1]), w[:, 2]), w[:, 3])
    wanted = jax.image.resize(low, high.shape, 'linear') + high
    np.testing.assert_allclose(one.synthesise(w)[:, 1:-1, 1:-1], wanted[:, 1:-1, 1:-1], rtol=1e-3, atol=1e-3)
    assert np.abs(low).max() > 0.1 and np.abs(high).max() > 0.1


def test_the_mapping_sees_the_direction_of_z_alone(generator):
    z = jax.random.normal(jax.random.key(0), (3, 6))
    first, other = nnx.jit(lambda generator, z: (generator.mapping(z), generator.mapping(9 * z)))(generator, z)
    np.testing.assert_allclose(first, other, rtol=1e-3, atol=1e-4)


def test_classes_are_heard_by_both_players():
    def run():
        both, label = players(8, 3, **TINY), {'label': jnp.arange(3)}
        z, x = jnp.ones((3, 6)), jnp.broadcast_to(jax.random.normal(jax.random.key(1), (8, 8, 3)), (3, 8, 8, 3))
        return both['generator'](z, label), both['discriminator'](x, label)

    images, logits = nnx.jit(run)()
    assert np.std(images, 0).max() > 1e-3 and np.std(logits) > 1e-4


@pytest.mark.parametrize('name', ['stylegan2', 'r3gan'])
def test_players_in_bfloat16_have_outputs_in_float32(name):
    config = ConfigDict({**networks.defaults(name), 'channels': 8, 'latent': 6, 'dtype': 'bfloat16'})

    def run():
        both = networks.generator_and_discriminator(config, DataSpec('images', (8, 8, 3), 256), {}, nnx.Rngs(0))
        image = both['generator'](jnp.ones((4, 6)))
        return image, both['discriminator'](image)

    text = str(jax.make_jaxpr(run)())
    assert [(one.shape, one.dtype) for one in jax.eval_shape(run)] == [((4, 8, 8, 3), 'float32'), ((4,), 'float32')]
    assert re.search(r'bf16\[4,8,8,8\] = (conv_general_dilated|dot_general)', text)
