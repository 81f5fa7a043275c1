"""Networks that are asked for a second time, for more than one output, or by slower sinusoids of the time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import networks
from genbench.config import ConfigDict
from genbench.data.spec import DataSpec
from genbench.networks import layers

SPEC = DataSpec('images', (4, 4, 3), 5)
SMALL = {'unet': {'channels': 8, 'multipliers': (1,), 'groups': 4}, 'dit': {'width': 32, 'depth': 1}}
both = pytest.mark.parametrize('name', list(SMALL))


def build(name, **options):
    """A network with random parameters everywhere, for fresh ones end in zeros."""
    config = ConfigDict({**networks.defaults(name), **SMALL[name]})
    network = networks.denoiser(config, SPEC, {}, nnx.Rngs(0), **options)
    draw = np.random.default_rng(0)
    nnx.update(network, jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw.normal(size=leaf.shape), jnp.float32),
                                     nnx.state(network, nnx.Param)))  # fmt: skip
    return network


X, T = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), jnp.array([0.7, 0.9])


@both
def test_a_network_tells_how_far_back_it_is_asked_to_go(name):
    network = build(name, second_time=True)
    far, near = (network(X, T, s=s) for s in (T - 0.5, T - 0.1))
    assert far.shape == X.shape and not np.allclose(far, near)
    np.testing.assert_array_equal(network(X, T), network(X, T, s=T))


@both
def test_a_network_without_a_second_time_does_not_take_one_and_has_no_more_parameters(name):
    plain, built = build(name), build(name, second_time=True)
    with pytest.raises(ValueError, match='not built to take a second time'):
        plain(X, T, s=T)
    count = lambda network: len(jax.tree.leaves(nnx.state(network, nnx.Param)))  # noqa: E731
    assert count(built) == count(plain) + 2


@both
def test_further_outputs_are_further_channels(name):
    assert build(name, outputs=2)(X, T).shape == (2, 4, 4, 6)


@pytest.mark.parametrize('scale', [1000.0, 30.0])
def test_the_sinusoids_turn_as_fast_as_their_scale(scale):
    """|d sin(c t)| ≤ c, which the fastest reaches; by finite differences."""
    t = jnp.linspace(0, 1, 20_001)
    embedded = np.asarray(layers.timestep_embedding(t, 16, scale=scale), float)
    slope = np.abs(np.diff(embedded, axis=0) / np.diff(np.asarray(t, float))[:, None]).max()
    assert slope == pytest.approx(scale, rel=0.05)
