"""Layers against independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.networks import layers, splitting
from genbench.networks.residual import ResidualBlock
from genbench.training import mesh as meshes


def images(*shape, seed=0):
    return 3 + 2 * jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(('channels', 'groups'), [(12, 4), (8, 8), (6, 1)])
def test_group_norm_equals_flax_in_value_and_gradient(channels, groups):
    x, weights = images(3, 5, 4, channels), images(3, 5, 4, channels, seed=1)
    ours = layers.GroupNorm(channels, groups=groups)
    flax = nnx.GroupNorm(channels, num_groups=groups, epsilon=1e-6, rngs=nnx.Rngs(0))
    scale, bias = images(2, channels, seed=2)

    def weighted(build, x, scale, bias):
        module = nnx.clone(build)
        module.scale[...], module.bias[...] = scale, bias
        return (weights * module(x)).sum()

    found, wanted = (
        jax.jit(jax.value_and_grad(lambda *inputs, m=m: weighted(m, *inputs), (0, 1, 2)))(x, scale, bias)
        for m in (ours, flax)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-3), found, wanted)


@pytest.mark.parametrize('offset', [0, 1, 10, 100])
def test_group_norm_in_bfloat16_is_as_exact_as_its_output(offset):
    """Against numpy in float64, for groups whose mean is so many deviations from zero."""
    x = (offset + jax.random.normal(jax.random.key(offset), (8, 16, 16, 64))).astype(jnp.bfloat16)
    grouped = np.asarray(x, np.float64).reshape(8, 256, 8, 8)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    wanted = (centred / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)).reshape(x.shape)

    def error(module):
        y = module(x)
        assert y.dtype == jnp.bfloat16
        return np.sqrt(np.square(np.asarray(y, np.float64) - wanted).mean())

    found = error(layers.GroupNorm(64, groups=8))
    flax = error(nnx.GroupNorm(64, num_groups=8, epsilon=1e-6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    rounding = np.sqrt(np.square(np.asarray(jnp.asarray(wanted, jnp.bfloat16), np.float64) - wanted).mean())
    assert found < 1.02 * flax
    assert found < 1.02 * rounding


def test_group_norm_takes_the_largest_number_of_groups_that_divides_the_channels():
    assert layers.GroupNorm(12, groups=32).groups == 4


def test_attention_is_a_softmax_over_pixels():
    module = layers.Attention(8, heads=2, rngs=nnx.Rngs(0))
    module.output.kernel[...] = images(8, 8)
    x = images(2, 3, 3, 8)
    qkv = np.asarray(module.inputs(module.norm(x))).reshape(2, 9, 3, 2, 4)
    q, k, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(4)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    wanted = x + module.output(jnp.asarray(mixed.transpose(0, 2, 1, 3).reshape(2, 3, 3, 8)))
    np.testing.assert_allclose(module(x), wanted, rtol=1e-4, atol=1e-4)


def test_fresh_residual_layers_are_the_identity():
    x = images(2, 4, 4, 8)
    np.testing.assert_array_equal(layers.Attention(8, rngs=nnx.Rngs(0))(x), x)
    np.testing.assert_array_equal(ResidualBlock(8, 8, groups=4, rngs=nnx.Rngs(0))(x), x)


def test_a_condition_scales_and_shifts_the_second_norm():
    """By hand, on one pixel, where the norm of a single group is that of a vector (Nichol & Dhariwal 2021)."""
    block = ResidualBlock(3, 3, condition=2, groups=1, scale_shift=True, rngs=nnx.Rngs(0))
    block.conv_out.kernel[...] = jnp.zeros((3, 3, 3, 3)).at[1, 1].set(jnp.eye(3))
    x, given = jnp.asarray([0.5, -1.0, 2.0]), jnp.asarray([1.0, -0.5])
    said = given @ block.condition.kernel[...] + block.condition.bias[...]
    silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731
    norm = lambda v: (v - v.mean()) / np.sqrt(v.var() + 1e-6)  # noqa: E731
    h = norm(silu(norm(x)) @ block.conv_in.kernel[1, 1] + block.conv_in.bias[...])
    expected = x + silu(h * (1 + said[:3]) + said[3:]) + block.conv_out.bias[...]
    found = block(x[None, None, None], given[None])[0, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_downsampling_halves_and_upsampling_doubles():
    x = images(2, 6, 4, 8)
    assert layers.Downsample(8, rngs=nnx.Rngs(0))(x).shape == (2, 3, 2, 8)
    assert layers.Upsample(8, rngs=nnx.Rngs(0))(x).shape == (2, 12, 8, 8)


def test_upsampling_repeats_each_pixel_before_its_convolution():
    module = layers.Upsample(2, rngs=nnx.Rngs(0))
    module.conv.kernel[...] = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
    x = images(1, 3, 2, 2)
    np.testing.assert_allclose(module(x), x.repeat(2, 1).repeat(2, 2), rtol=1e-6)


def test_dropout_keeps_the_mean_and_needs_a_key():
    x = jnp.ones((100, 100))
    dropped = np.asarray(layers.dropout(x, 0.3, jax.random.key(0)))
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    assert dropped.mean() == pytest.approx(1, abs=5 * np.sqrt(0.3 / 0.7) / 100)
    np.testing.assert_array_equal(layers.dropout(x, 0.3, None), x)


def test_similarity_of_two_timestep_embeddings_depends_on_their_difference_alone():
    t = jnp.linspace(0, 0.5, 6)
    here, later = layers.timestep_embedding(t, 32), layers.timestep_embedding(t + 0.1, 32)
    np.testing.assert_allclose((here * here).sum(-1), 16, rtol=1e-5)
    similarity = np.asarray((here * later).sum(-1))
    np.testing.assert_allclose(similarity, similarity[0], atol=0.01)
    assert similarity[0] < 15


def test_outputs_are_reshaped_alike_through_the_kernel_and_through_the_result():
    linear = layers.Linear(8, 24, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0))
    x = images(2, 5, 8)
    kernel, bias = linear.kernel[...].reshape(8, 3, 2, 4), linear.bias[...].reshape(3, 2, 4)
    wanted = np.einsum('bti,ipqr->btpqr', x, kernel) + bias
    np.testing.assert_allclose(linear.into(x, 3, 2, 4), wanted, rtol=1e-5, atol=1e-5)
    with splitting.images_split(meshes.split_batch(meshes.make_mesh())):
        np.testing.assert_allclose(linear.into(x, 3, 2, 4), wanted, rtol=1e-5, atol=1e-5)
