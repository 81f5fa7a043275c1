"""The network of variational diffusion models: its published sizes, its features of pixels, and its shortcut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from genbench import config as configs
from genbench import families, networks
from genbench.data.spec import DataSpec
from genbench.networks import unet
from genbench.training import samplers


def build(size=32, **options):
    config = ConfigDict({**networks.defaults('vdm'), **options})
    return networks.denoiser(config, DataSpec('images', (size, size, 3), 256), {}, nnx.Rngs(0))


def test_a_fresh_network_gives_its_input_and_no_resolution_changes():
    network = build(4, channels=8, blocks=1, groups=4)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    np.testing.assert_array_equal(jax.jit(lambda x, t: network(x, t))(x, jnp.asarray([0.1, 0.9])), x)
    assert not [layer for layer in (*network.down, *network.up) if not isinstance(layer, unet.Level)]
    assert [level.attention is not None for level in (*network.down, *network.middle, *network.up)] == [
        False, True, False, False, False,
    ]  # fmt: skip


def test_it_sees_sines_and_cosines_that_tell_neighbouring_levels_apart(monkeypatch):
    seen = []
    monkeypatch.setattr(unet.UNet, '__call__', lambda self, x, *rest: seen.append(x) or jnp.zeros((*x.shape[:3], 3)))
    levels = (2 * np.arange(256) + 1) / 256 - 1
    x = np.tile(levels[:, None, None, None], (1, 1, 1, 3))
    build(4, channels=8, blocks=1, groups=4)(jnp.asarray(x, jnp.float32), jnp.zeros(256))
    angles = [2**n * np.pi * x for n in (7, 8)]
    wanted = np.concatenate([x, *map(np.sin, angles), *map(np.cos, angles)], axis=-1)
    np.testing.assert_allclose(seen[0], wanted, atol=1e-4)
    assert np.abs(np.diff(seen[0][:, 0, 0, 3])).min() > 1.9  # sin(2⁷ π x) changes its sign from level to level


# 30.58 million parameters in VDM's official code, which has no bias where blocks add the time, and a condition that is
# always zero beside the embedding of the time; the others as in tests/networks/test_resampled.py.
COUNTS = {'vdm': 30_578_179 + (2 * 32 + 3) * 128 - 4 * 128, 'edm': 55_733_891}


@pytest.mark.parametrize('name', ['vdm', 'edm', 'ddpmpp', 'ncsnpp'])
def test_configs_of_papers_have_their_networks_and_samplers(name):
    config = configs.load(f'cifar10/{name}')
    family = families.get(config.family.name)(config, DataSpec('cifar10', (32, 32, 3), 256, 10), {})
    assert [samplers.parse(text, family) for text in config.evaluation.samplers]
    if name in COUNTS:
        network = nnx.eval_shape(lambda: family.networks(nnx.Rngs(0))['denoiser'])
        assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))) == COUNTS[name]
