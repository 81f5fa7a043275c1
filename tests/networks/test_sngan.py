"""SNGAN, BigGAN and DCGAN: published sizes, batch normalisation by numpy, attention, classes and parts of z."""

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
from genbench.networks import dcgan, layers, sngan
from genbench.networks.batch_norm import BatchNorm

CIFAR = {
    'channels': 256, 'multipliers': (1, 1, 1, 1), 'latent': 128, 'discriminator_channels': 128,
    'discriminator_multipliers': (1, 1, 1, 1), 'halvings': 2,
}  # fmt: skip
TINY = {'channels': 8, 'multipliers': (1, 1), 'latent': 6, 'discriminator_channels': 8, 'halvings': 1}
THREE = {'label': Form('classes', (), 3)}


def players(name, size, classes=0, **options):
    config = ConfigDict({**networks.defaults(name), **options})
    forms = {'label': Form('classes', (), classes)} if classes else {}
    return networks.generator_and_discriminator(config, DataSpec('images', (size, size, 3), 256), forms, nnx.Rngs(0))


def filled(build):
    """A module of random numbers, whose own first weights need not be compiled."""
    rng, module = np.random.default_rng(1), nnx.eval_shape(build)
    draw = lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    nnx.update(module, jax.tree.map(draw, nnx.state(module)))
    return module


def sizes(*arguments, **options):
    built = nnx.eval_shape(lambda: players(*arguments, **options))
    return [sum(leaf.size for leaf in jax.tree.leaves(nnx.state(one, nnx.Param))) for one in
            (built['generator'], built['discriminator'])]  # fmt: skip


def test_published_networks_have_the_layers_of_their_tables():
    """Tables 3 and 4 for 32 pixels: 3×3 kernels of 256 and 128 channels, 1×1 shortcuts, and biases everywhere.

    With ten classes, each norm of a block has ten gains and shifts for one, and ten vectors are projected.
    """
    wide, slim = 9 * 256**2 + 256, 9 * 128**2 + 128
    generator = 129 * 4096 + 3 * (2 * wide + 257 * 256 + 4 * 256) + 2 * 256 + 9 * 256 * 3 + 3
    critic = (9 * 3 * 128 + 128 + slim + 4 * 128) + (2 * slim + 129 * 128) + 2 * 2 * slim + 129
    assert sizes('sngan', 32, **CIFAR) == [generator, critic] == [4_276_739, 1_053_825]
    assert sizes('sngan', 32, 10, **CIFAR) == [generator + 6 * 2 * 256 * 9, critic + 1280]


def test_dcgan_doubles_with_a_transposed_convolution():
    layer = dcgan.Doubling(3, 2, bias=False, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    np.testing.assert_allclose(layer(x), jax.lax.conv_transpose(x, layer.kernel[...], (2, 2), 'SAME'), atol=1e-6)


def test_dcgan_for_64_pixels_has_the_layers_of_its_figure():
    """Figure 1: 100 × 4 · 4 · 1024, then 5×5 kernels to 512, 256, 128 and 3 channels; a gain and a shift each."""
    kernels = sum(25 * before * after for before, after in ((1024, 512), (512, 256), (256, 128), (128, 3)))
    found = sizes('dcgan', 64, channels=128, multipliers=(1, 2, 4, 8), latent=100)
    assert found[0] == 100 * 16 * 1024 + kernels + 2 * (1024 + 512 + 256 + 128) + 3
    assert found[1] == kernels + 128 + 2 * (256 + 512 + 1024) + 16 * 1024 + 1


@pytest.fixture(scope='module')
def x():
    return jnp.asarray(np.random.default_rng(0).normal(2, 3, size=(6, 4, 4, 5)), jnp.float32)


def test_normalisation_uses_the_batch_in_training_and_running_statistics_afterwards(x):
    norm = BatchNorm(5, rngs=nnx.Rngs(0))
    norm.scale[...], norm.shift[...] = jnp.arange(1.0, 6), jnp.arange(5.0)
    mean, variance = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    wanted = (x - mean) / np.sqrt(variance + 1e-5) * np.arange(1, 6) + np.arange(5)
    np.testing.assert_allclose(norm(x, True), wanted, rtol=1e-4, atol=1e-4)
    kept = (x - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5) * np.arange(1, 6) + np.arange(5)
    np.testing.assert_allclose(norm(x, False), kept, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(norm(x[:1], False), norm(x, False)[:1])


def test_classes_and_vectors_have_gains_and_shifts_of_their_own(x):
    rng = np.random.default_rng(1)
    table, matrix = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 10), (2, 10)))
    norm = BatchNorm(5, forms=THREE, vector=2, rngs=nnx.Rngs(0))
    norm.classes.entries['label'].embedding[...], norm.linear.kernel[...] = table, matrix
    label, vector = jnp.array([0, 1, 2, 2, 1, 0]), jnp.asarray(rng.normal(size=(6, 2)), jnp.float32)
    told = np.asarray(table)[np.asarray(label)] + np.asarray(vector) @ np.asarray(matrix)
    plain = (x - np.mean(x, (0, 1, 2))) / np.sqrt(np.var(x, (0, 1, 2)) + 1e-5)
    wanted = plain * (1 + told[:, None, None, :5]) + told[:, None, None, 5:]
    np.testing.assert_allclose(norm(x, True, {'label': label}, vector), wanted, rtol=1e-3, atol=1e-3)


def test_attention_is_its_definition(x):
    """Pixel by pixel in numpy: softmax of products with the largest keys of each square, of the values likewise."""
    attention = sngan.Attention(5, sngan.Make(layers, 'uniform', nnx.Rngs(0)))
    np.testing.assert_array_equal(attention(x), x)
    attention.factor[...] = jnp.asarray(0.7)
    weights = [np.asarray(one.kernel[0, 0]) for one in (attention.queries, attention.keys, attention.values)]
    found, last = attention(x), np.asarray(attention.output.kernel[0, 0])
    for image, mine in zip(np.asarray(x), found, strict=True):
        queries, keys, values = (image @ one for one in weights)
        keys, values = (
            [part[i : i + 2, j : j + 2].max((0, 1)) for i in (0, 2) for j in (0, 2)] for part in (keys, values)
        )
        wanted = image.copy()
        for place in np.ndindex(4, 4):
            scores = np.exp([queries[place] @ key for key in keys])
            wanted[place] += 0.7 * (np.array(values).T @ (scores / scores.sum())) @ last
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=1e-4)


def test_logits_add_a_projection_of_the_class_to_the_sum_over_pixels():
    """Equation 3 of Miyato & Koyama 2018 with the kernels as they are, from the features of the last block."""
    critic = filled(lambda: players('sngan', 8, 3, **TINY, spectral=False)['discriminator'])
    images, label = jax.random.normal(jax.random.key(0), (3, 8, 8, 3)), jnp.arange(3)

    @nnx.jit
    def run(critic, images):
        h = images
        for block in critic.blocks:
            h = block(h)
        return critic(images, {'label': label}), nnx.relu(h).sum((1, 2))

    found, features = run(critic, images)
    wanted = (
        features @ critic.output.kernel[:, 0] + critic.output.bias[...] + (features * critic.classes.kernel[...]).sum(1)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_parts_of_z_and_a_shared_embedding_reach_every_block():
    """BigGAN's: with the first part of z alone, neither the class nor the other part would change anything."""
    options = {**TINY, 'shared': 4, 'split': True, 'attention': (8,), 'spectral_generator': True}
    generator = filled(lambda: players('sngan', 8, 3, **options)['generator'])
    assert [one.linear.kernel.shape for block in generator.blocks if isinstance(block, sngan.Up)
            for one in (block.norm_in, block.norm_out)] == [(4 + 3, 16)] * 2  # fmt: skip
    z = jnp.ones((3, 6)).at[1, 3:].set(-1)
    images = nnx.jit(lambda generator, z: generator(z, {'label': jnp.array([0, 0, 1])}, True))(generator, z)
    assert np.abs(images[0] - images[1]).max() > 1e-3 and np.abs(images[0] - images[2]).max() > 1e-3


@pytest.mark.parametrize(
    ('name', 'size', 'classes', 'options', 'message'),
    [
        ('sngan', 8, 3, {**TINY, 'split': True, 'latent': 7}, 'network.latent is 7.*divisible by 2'),
        ('sngan', 8, 0, {**TINY, 'halvings': 3}, 'network.halvings is 3.*number of blocks, 2'),
        ('sngan', 8, 0, {**TINY, 'attention': (16,)}, 'network.attention has 16.*it can be 4 or 8'),
        ('sngan', 12, 0, {**TINY, 'halvings': 2, 'attention': (3,)}, 'has 3.*be 6 or 12'),
        ('dcgan', 8, 0, {'multipliers': (1, 1, 1, 1)}, 'divisible by 16, but it is 8'),
        ('dcgan', 8, 3, {}, "dcgan takes no conditions.*'label'"),
    ],
)
def test_what_does_not_fit_is_refused(name, size, classes, options, message):
    with pytest.raises(UserError, match=message):
        nnx.eval_shape(lambda: players(name, size, classes, **options))
