"""R3GAN's networks: published sizes, initialisation, and what they compute by torch's operations."""

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
from genbench.networks import platforms, r3gan

CIFAR10 = {'channels': 768, 'multipliers': (1, 1, 1, 1), 'group': 8}
IMAGENET64 = {'channels': 1536, 'multipliers': (1, 1, 1, 1, 1), 'group': 16}
FFHQ = {'channels': 96, 'multipliers': (1, 2, 4, 8, 8, 8, 8), 'group': 8}
TINY = {'channels': 8, 'multipliers': (1, 2), 'group': 4, 'blocks': 1, 'latent': 4}


def labels(count):
    return {'label': Form('classes', (), count)} if count else {}


def players(size, classes, **options):
    config = ConfigDict({**networks.defaults('r3gan'), **options})
    space = DataSpec('images', (size, size, 3), 256)
    return networks.generator_and_discriminator(config, space, labels(classes), nnx.Rngs(0))


@pytest.mark.parametrize(
    ('size', 'classes', 'options', 'generator', 'discriminator'),
    [
        (32, 10, CIFAR10, 20_781_952, 21_280_512),
        (64, 1000, IMAGENET64, 103_570_432, 107_205_120),
        (256, 0, FFHQ, 23_057_952, 23_009_568),
    ],
)
def test_published_networks_have_their_parameters(size, classes, options, generator, discriminator):
    """The presets of the code: 20.78 and 21.28 million, 103.57 and 107.21, 23.06 and 23.01."""
    built = nnx.eval_shape(lambda: players(size, classes, **options))
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(one, nnx.Param))) for name, one in built.items()
    }
    assert counts == {'generator': generator, 'discriminator': discriminator}


@pytest.fixture(scope='module')
def fresh():
    options = {'channels': 64, 'multipliers': (1, 2), 'group': 8, 'blocks': 3, 'latent': 256}
    return nnx.jit(lambda: players(8, 10, **options))()


def test_layers_start_as_in_the_code(fresh):
    """Variance gain² / inputs; the gain of a block's first two layers is √(2 / 1.04) · 6^(−1/4), with six blocks."""
    generator, discriminator = fresh['generator'], fresh['discriminator']
    block, gain = generator.stages[0][0], 2 / 1.04 / np.sqrt(6)
    wanted = {
        'input': (generator.input.kernel, 1 / (256 + 64)),
        'widen': (block.widen.kernel, gain / 128),
        'conv': (block.conv.kernel, gain / (9 * 16)),
        'transition': (generator.transitions[0].kernel, 1 / 128),
        'basis of the generator': (generator.basis, 1),
        'basis of the discriminator': (discriminator.basis, 1 / 16),
        'classes of the generator': (generator.classes.entries['label'].embedding, 1 / 10),
        'classes of the discriminator': (discriminator.classes.entries['label'].embedding, 1 / 10 / 128),
    }
    for name, (values, variance) in wanted.items():
        values = np.asarray(values[...])
        assert np.square(values).mean() == pytest.approx(variance, rel=5 * np.sqrt(2 / values.size)), name
    assert block.conv.kernel[...].shape == (3, 3, 16, 256)
    assert not block.narrow.kernel[...].any() and not block.widen.bias[...].any()


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
def test_a_block_is_two_products_around_a_convolution_of_each_group(platform):
    """As it is traced for each, by numpy, a group and a place of the window at a time."""
    rng = np.random.default_rng(0)
    block = r3gan.Block(8, 4, group=4, expansion=2, rngs=nnx.Rngs(0))
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 4, jnp.float32)  # noqa: E731
    nnx.update(block, jax.tree.map(draw, nnx.state(block, nnx.Param)))
    x = rng.normal(size=(2, 5, 5, 8)).astype(np.float32)
    leaky = lambda x: np.where(x > 0, x, 0.2 * x)  # noqa: E731
    h = leaky(x @ block.widen.kernel[...] + block.widen.bias[...])
    h, kernel, wide = np.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0))), np.asarray(block.conv.kernel[...]), []
    for group in range(2):
        own, places = slice(8 * group, 8 * group + 8), [(i, j) for i in range(3) for j in range(3)]
        wide.append(sum(h[:, i : i + 5, j : j + 5, own] @ kernel[i, j][:, own] for i, j in places))
    wanted = x + leaky(np.concatenate(wide, -1) + block.conv.bias[...]) @ block.narrow.kernel[...]
    with platforms.compiled_for(platform):
        found = nnx.jit(block)(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def enlarged(x, axis):
    """[1, 3, 3, 1] as bilinear interpolation at a quarter and three quarters between pixels, with zeros outside."""
    x = np.moveaxis(x, axis, 0)
    around = np.pad(x, [(1, 1)] + [(0, 0)] * (x.ndim - 1))
    pairs = np.stack([0.75 * x + 0.25 * around[:-2], 0.75 * x + 0.25 * around[2:]], axis=1)
    return np.moveaxis(pairs.reshape(-1, *x.shape[1:]), 0, axis)


def reduced(x, axis):
    """The weighted mean of four pixels, with zeros outside."""
    x = np.moveaxis(x, axis, 0)
    around = np.pad(x, [(1, 1)] + [(0, 0)] * (x.ndim - 1))
    return np.moveaxis(sum(w * around[i : i + len(x) : 2] for i, w in enumerate((1, 3, 3, 1))) / 8, 0, axis)


def test_players_are_stages_of_blocks_with_filters_between_them():
    """From the lowest resolution to the image, and back to one logit; what a block computes is tested above."""
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3, jnp.float32)  # noqa: E731
    made = nnx.jit(lambda: players(8, 0, **TINY))()
    for one in made.values():
        nnx.update(one, jax.tree.map(draw, nnx.state(one, nnx.Param)))
    generator, discriminator = made['generator'], made['discriminator']
    block = nnx.jit(lambda block, h: block(h))
    z = rng.normal(size=(2, TINY['latent'])).astype(np.float32)
    h = (z @ np.asarray(generator.input.kernel))[:, None, None] * np.asarray(generator.basis)
    h = np.asarray(block(generator.stages[0][0], h)) @ np.asarray(generator.transitions[0].kernel)
    h = np.asarray(block(generator.stages[1][0], enlarged(enlarged(h, 1), 2)))
    image = h @ np.asarray(generator.output.kernel)
    np.testing.assert_allclose(nnx.jit(generator)(z), image, rtol=1e-3, atol=1e-3)
    h = np.asarray(block(discriminator.stages[0][0], image @ np.asarray(discriminator.input.kernel)))
    h = reduced(reduced(h, 1), 2) @ np.asarray(discriminator.transitions[0].kernel)
    h = (block(discriminator.stages[1][0], h) * np.asarray(discriminator.basis)).sum((1, 2))
    wanted = (h @ np.asarray(discriminator.output.kernel))[:, 0]
    np.testing.assert_allclose(nnx.jit(discriminator)(image), wanted, rtol=1e-3, atol=1e-3)
    assert np.abs(wanted).max() > 0.1


def test_logits_are_linear_in_the_vector_of_the_class():
    """So the logit of a class whose vector is the sum of two others is the sum of theirs (Miyato & Koyama 2018)."""

    def run(x):
        one = players(8, 3, **TINY)['discriminator']
        vectors = one.classes.entries['label'].embedding
        vectors[...] = vectors[...].at[2].set(vectors[0] + vectors[1])
        return one(x, {'label': jnp.arange(3)})

    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    first, second, both = nnx.jit(run)(jnp.repeat(image, 3, axis=0))
    assert float(both) == pytest.approx(float(first + second), rel=1e-4) and abs(first - second) > 1e-3


def test_groups_that_do_not_divide_the_channels_and_networks_without_players_are_refused():
    with pytest.raises(UserError, match='Groups of 3 channels.*do not divide the 16'):
        players(8, 0, **{**TINY, 'group': 3})
    with pytest.raises(UserError, match="'unet', which has no generator.*r3gan"):
        config = ConfigDict(networks.defaults('unet'))
        networks.generator_and_discriminator(config, DataSpec('images', (8, 8, 3), 256), {}, nnx.Rngs(0))
