"""The modern diffusion transformer: rotary positions, what sets it apart from `dit`, and its size."""

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
from genbench.exchange import export
from genbench.networks import modern_dit

GRID, SIZE = (3, 5), 8
LABELS = {'label': Form('classes', (), 3)}


def logits(queries, keys):
    """Products of rotated queries and keys (size,) between all places, (tokens, tokens)."""
    count = GRID[0] * GRID[1]
    turned = modern_dit.angles(*GRID, SIZE)
    one, other = (
        modern_dit.rotated(jnp.broadcast_to(part, (1, count, 1, SIZE)), turned)[0, :, 0] for part in (queries, keys)
    )
    return np.asarray(one @ other.T)


def test_products_of_queries_and_keys_depend_on_their_offset_alone_and_on_both_of_its_parts():
    drawn = np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
    found, places = logits(*drawn), np.stack(np.mgrid[: GRID[0], : GRID[1]], -1).reshape(-1, 2)
    by_offset = {}
    for i, j in np.ndindex(*found.shape):
        by_offset.setdefault(tuple(places[i] - places[j]), []).append(found[i, j])
    assert len(by_offset) == (2 * GRID[0] - 1) * (2 * GRID[1] - 1)
    for values in by_offset.values():
        np.testing.assert_allclose(values, values[0], atol=1e-4)
    means = np.sort([np.mean(values) for values in by_offset.values()])
    assert np.diff(means).min() > 1e-4
    assert by_offset[0, 0][0] == pytest.approx(drawn[0] @ drawn[1], abs=1e-4)


def test_rotation_is_the_product_with_complex_numbers_of_row_and_column():
    """Su et al. 2021, equation 13: Re Σ q k̄ e^{i (m − n) θ}, with θ = 10000^(−2 i / d) of the d features of an axis."""
    query, key = np.random.default_rng(1).normal(size=(2, SIZE)).astype(np.float32)
    q, k = (one[: SIZE // 2] + 1j * one[SIZE // 2 :] for one in (query, key))
    theta, (row, column) = np.array([1, 10_000**-0.5]), (2, -3)
    turned = np.exp(1j * np.concatenate([row * theta, column * theta]))
    i, j = 2 * GRID[1] + 1, 0 * GRID[1] + 4  # places (2, 1) and (0, 4)
    assert logits(query, key)[i, j] == pytest.approx(np.sum(q * k.conj() * turned).real, abs=1e-4)


def closed_form(depth, width, heads, hidden, pixels, classes):
    """Weights and biases of `dit` without its perceptrons, those of SwiGLU, and the scales of queries and keys."""
    block = (3 + 1 + 6) * width**2 + (3 + 1 + 6) * width + 3 * width * hidden + 2 * hidden + width + 2 * width // heads
    ends = pixels * width + width + 2 * width**2 + 2 * width + width * pixels + pixels
    condition = 256 * width + width + width**2 + width + (classes + 1) * width
    return depth * block + ends + condition


def test_its_size_is_that_of_dit_s():
    """Three matrices of 1024 hidden units have as many weights as two of 1536."""

    def count(name):
        config = ConfigDict({**networks.defaults(name), 'depth': 12, 'width': 384, 'heads': 6})
        build = lambda: networks.denoiser(config, DataSpec('images', (32, 32, 3), 256), LABELS, nnx.Rngs(0))  # noqa: E731
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(nnx.eval_shape(build), nnx.Param)))

    found = count('modern_dit')
    assert found == closed_form(12, 384, 6, 1024, 12, 3)
    assert found == pytest.approx(count('dit'), rel=1e-3)


@pytest.fixture(scope='module')
def network():
    config = ConfigDict({**networks.defaults('modern_dit'), 'depth': 1, 'width': 16, 'heads': 2, 'patch': 2})
    return networks.denoiser(config, DataSpec('images', (4, 6, 1), 17), LABELS, nnx.Rngs(0))


def test_a_fresh_network_is_zero_and_a_scrambled_one_sees_labels_times_and_places(network):
    x, t, told = jax.random.normal(jax.random.key(0), (2, 4, 6, 1)), jnp.array([0.1, 0.9]), {'label': jnp.array([0, 2])}
    run = nnx.jit(lambda network, x, t, told: network(x, t, told))
    np.testing.assert_array_equal(run(network, x, t, told), jnp.zeros_like(x))
    rng = np.random.default_rng(1)
    nnx.update(network, jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32),
                                     nnx.state(network, nnx.Param)))  # fmt: skip
    y = run(network, x, t, told)
    assert np.abs(run(network, x, t, {'label': jnp.array([1, 1])}) - y).max() > 1e-3
    assert np.abs(run(network, x, t + 0.05, told) - y).max() > 1e-3
    for axis in (1, 2):
        assert np.abs(jnp.roll(run(network, jnp.roll(x, 2, axis), t, told), -2, axis) - y).max() > 1e-3


def test_attention_compares_normalised_queries_and_keys_as_complex_numbers():
    """By hand, pair by pair: softmax of Re Σ q k̄ e^{i (m − n) θ} / √d, with q and k over their root mean squares."""
    attention = modern_dit.Attention(2 * SIZE, 2, GRID, rngs=nnx.Rngs(0))
    attention.scales[...] = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, (2, SIZE)), jnp.float32)
    x = np.random.default_rng(3).normal(size=(GRID[0] * GRID[1], 2 * SIZE))
    w, b, o, c = (np.asarray(part[...], np.float64) for layer in (attention.inputs, attention.output)
                  for part in (layer.kernel, layer.bias))  # fmt: skip
    qkv, theta = (x @ w + b).reshape(len(x), 3, 2, SIZE), np.array([1, 10_000**-0.5])
    means = np.sqrt((qkv[:, :2] ** 2).mean(-1, keepdims=True))
    asked = qkv[:, :2] / means * np.asarray(attention.scales[...])[:, None]
    asked = asked[..., : SIZE // 2] + 1j * asked[..., SIZE // 2 :]
    places = np.stack(np.mgrid[: GRID[0], : GRID[1]], -1).reshape(-1, 2)
    found = np.zeros((len(x), 2, SIZE))
    for i, head in np.ndindex(len(x), 2):
        turned = [np.exp(1j * np.concatenate([part * theta for part in places[i] - place])) for place in places]
        scores = [(asked[i, 0, head] * asked[j, 1, head].conj() * turned[j]).sum().real for j in range(len(x))]
        weights = np.exp(np.array(scores) / SIZE**0.5)
        found[i, head] = weights / weights.sum() @ qkv[:, 2, head]
    wanted = found.reshape(len(x), -1) @ o + c
    np.testing.assert_allclose(attention(jnp.asarray(x[None], jnp.float32))[0], wanted, rtol=1e-3, atol=1e-4)


def test_the_perceptron_is_gated_by_the_silu_of_half_of_its_layer():
    """Shazeer 2020, equation 6: (x W σ(x W) ⊙ x V) W₂, here with biases."""
    network, x = modern_dit.SwiGLU(4, 6, rngs=nnx.Rngs(0)), np.random.default_rng(4).normal(size=(1, 3, 4))
    w, b, o, c = (np.asarray(part[...], np.float64) for layer in (network.hidden, network.output)
                  for part in (layer.kernel, layer.bias))  # fmt: skip
    gate, value = np.split(x @ w + b, 2, axis=-1)
    wanted = gate / (1 + np.exp(-gate)) * value @ o + c
    np.testing.assert_allclose(network(jnp.asarray(x, jnp.float32)), wanted, rtol=1e-4, atol=1e-5)


def test_normalised_tokens_and_queries_do_not_grow_with_their_input():
    """Without a mean taken away: RMS normalisation keeps a constant vector, which layer normalisation sends to zero."""
    x, nothing = jnp.full((1, 2, 8), 3.0), jnp.zeros((1, 8))
    np.testing.assert_allclose(modern_dit.modulate(x, nothing, nothing), 1, rtol=1e-5)
    attention = modern_dit.Attention(8, 1, (1, 2), rngs=nnx.Rngs(0))
    tokens = jax.random.normal(jax.random.key(0), (1, 2, 8))
    np.testing.assert_allclose(attention(100 * tokens), 100 * attention(tokens), rtol=1e-3)  # as the values alone do


def test_it_is_not_exported_as_a_dit_of_diffusers(network):
    layout = export.layout_of(network)
    with pytest.raises(UserError, match='it is neither a unet nor a dit'):
        layout.check(networks.defaults('modern_dit'), 'denoiser', network, LABELS)


def test_heads_that_cannot_hold_two_axes_are_refused():
    config = ConfigDict({**networks.defaults('modern_dit'), 'width': 24, 'heads': 4})
    with pytest.raises(UserError, match='network.width is 24 and network.heads 4; the width of a head should be'):
        networks.denoiser(config, DataSpec('images', (8, 8, 1), 17), {}, nnx.Rngs(0))
