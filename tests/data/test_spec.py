"""The two encodings of integer images, and the unit that likelihoods are reported in."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data.spec import DataSpec

LEVELS = (2, 17, 256)


def spec_with(levels):
    return DataSpec('images', (1, levels, 1), levels)


def all_levels(levels):
    return jnp.arange(levels).reshape(1, 1, levels, 1)


@pytest.mark.parametrize('levels', LEVELS)
def test_decode_inverts_encode(levels):
    spec, images = spec_with(levels), all_levels(levels)
    np.testing.assert_array_equal(spec.decode(spec.encode(images)), images)


@pytest.mark.parametrize('levels', LEVELS)
@pytest.mark.parametrize('u', [1e-5, 0.25, 0.5, 0.75, 1 - 1e-5])  # nearer to an edge float32 rounds across it
def test_quantise_inverts_dequantise_inside_the_bin(levels, u):
    spec, images = spec_with(levels), all_levels(levels)
    np.testing.assert_array_equal(spec.quantise(spec.dequantise(images, u)), images)


@pytest.mark.parametrize('levels', LEVELS)
def test_encode_puts_the_outermost_levels_at_the_ends(levels):
    x = np.ravel(spec_with(levels).encode(all_levels(levels)))
    np.testing.assert_allclose([x[0], x[-1]], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(np.diff(x), 2 / (levels - 1), atol=1e-6)


@pytest.mark.parametrize('levels', LEVELS)
def test_dequantised_bins_tile_the_range(levels):
    spec, images = spec_with(levels), all_levels(levels)
    low, high = np.ravel(spec.dequantise(images, 0.0)), np.ravel(spec.dequantise(images, 1.0))
    np.testing.assert_allclose([low[0], high[-1]], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(high[:-1], low[1:], atol=1e-6)
    np.testing.assert_allclose(np.log(high - low), spec.log_bin_width, rtol=1e-4)


def test_values_outside_the_range_go_to_the_nearest_level():
    spec, x = spec_with(17), jnp.asarray([-7.0, -1.0, 1.0, 7.0])
    for integers in (spec.decode(x), spec.quantise(x)):
        assert integers.dtype == jnp.int32
        np.testing.assert_array_equal(integers, [0, 0, 16, 16])


@pytest.mark.parametrize('levels', LEVELS)
def test_the_uniform_distribution_costs_log2_of_the_levels(levels):
    spec = DataSpec('images', (3, 5, 2), levels)
    assert spec.bits_per_dim(-spec.num_dims * np.log(levels)) == pytest.approx(np.log2(levels))


@pytest.mark.parametrize('levels', LEVELS)
def test_the_uniform_density_over_the_range_is_the_uniform_distribution(levels):
    spec = DataSpec('images', (3, 5, 2), levels)
    log_density = spec.num_dims * np.log(1 / 2)
    nats = log_density + spec.num_dims * spec.log_bin_width
    assert spec.bits_per_dim(nats) == pytest.approx(np.log2(levels))
