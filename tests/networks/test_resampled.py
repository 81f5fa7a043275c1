"""NCSN++, DDPM++ and ADM: sizes, filters and conditions. tests/exchange/test_song.py has what they compute."""

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
from genbench.networks import resampled

AUGMENTED = {'augmentation': Form('vector', (9,))}
BIG = {'channels': 128, 'blocks': 4, 'attention': (16,)}
NCSNPP = {**BIG, 'embedding': 'fourier', 'taps': (1, 3, 3, 1), 'pyramid': True}
ADM = {'channels': 192, 'multipliers': (1, 2, 3, 4), 'blocks': 3, 'attention': (32, 16, 8), 'head_width': 64}


def labels(count):
    return {'label': Form('classes', (), count)}


def build(name, size, forms, **options):
    config = ConfigDict({**networks.defaults(name), **options})
    return networks.denoiser(config, DataSpec('images', (size, size, 3), 256), forms, nnx.Rngs(0))


@pytest.mark.parametrize(
    ('name', 'size', 'forms', 'options', 'wanted'),
    [
        ('ncsnpp', 32, {}, {**NCSNPP, 'multipliers': (1, 2, 2, 2)}, 62_758_787),  # score SDE's NCSN++
        ('ncsnpp', 32, {}, {**BIG, 'multipliers': (1, 2, 2, 2)}, 61_804_419),  # and its DDPM++
        ('ncsnpp', 32, AUGMENTED, {**BIG, 'multipliers': (2, 2, 2)}, 55_733_891),  # EDM's
        ('ncsnpp', 32, labels(10) | AUGMENTED, {**BIG, 'multipliers': (2, 2, 2)}, 55_735_299),
        ('ncsnpp', 32, AUGMENTED, {**NCSNPP, 'multipliers': (2, 2, 2)}, 56_397_827),
        ('adm', 64, labels(1000), ADM, 295_899_267 + 4 * 192),  # and a vector for knowing no class
    ],
)
def test_published_networks_have_their_parameters(name, size, forms, options, wanted):
    """As the official code counts them, of NVlabs/edm; in millions as the papers print them."""
    network = nnx.eval_shape(lambda: build(name, size, forms, **options))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param))) == wanted


def test_the_filter_of_two_repeats_and_averages_pixels():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    averages = np.asarray(x).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(resampled.halved(x, (1, 1)), averages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(resampled.doubled(x, (1, 1)), np.asarray(x).repeat(2, 1).repeat(2, 2), rtol=1e-6)


def test_the_longer_filter_is_a_convolution_with_zeros_around():
    """By numpy's convolution of each line."""
    line = np.random.default_rng(0).normal(size=8).astype(np.float32)
    taps = np.array([1, 3, 3, 1]) / 8
    x = jnp.asarray(line)[None, :, None, None] * jnp.ones((1, 8, 8, 1))
    inside = slice(2, -2)  # far from the ends of the other axis
    halved = np.asarray(resampled.halved(x, (1, 3, 3, 1)))[0, :, 1, 0]
    np.testing.assert_allclose(halved, np.convolve(np.pad(line, 1), taps, 'valid')[::2], rtol=1e-5, atol=1e-6)
    wide = np.zeros(17)
    wide[1::2][:8] = line
    doubled = np.asarray(resampled.doubled(x, (1, 3, 3, 1)))[0, inside, 8, 0]
    np.testing.assert_allclose(doubled, np.convolve(np.pad(wide, 2), 2 * taps, 'valid')[1:17][inside], atol=1e-6)


@pytest.mark.parametrize('name', ['ncsnpp', 'adm'])
def test_all_conditions_a_second_time_and_a_second_output_are_taken(name):
    words = {'caption': Form('tokens', (3,), 7), 'grey': Form('image', (4, 4, 1))}
    forms = {**labels(3), **AUGMENTED, **words, 'guidance_weight': Form('number', limits=(0.0, 4.0))}
    config = ConfigDict({**networks.defaults(name), 'channels': 32, 'multipliers': (1, 1), 'attention': (4,)})

    def apply(x, t, key):
        made = networks.denoiser(
            config, DataSpec('images', (4, 4, 3), 256), forms, nnx.Rngs(0), second_time=True, outputs=2
        )
        return made(x, t, None, key=key, s=t / 2)

    y = jax.eval_shape(apply, jnp.ones((2, 4, 4, 3)), jnp.array([0.2, 0.9]), jax.random.key(0))
    assert y.shape == (2, 4, 4, 6)


@pytest.mark.parametrize(('name', 'options', 'words'), [
    ('ncsnpp', {'taps': (1, 2, 1)}, 'network.taps has 3 numbers; an even number'),
    ('ncsnpp', {'heads': 3}, 'network.heads=3 should divide it'),
    ('adm', {'head_width': 24}, 'network.head_width is 24; it should divide 64'),
    ('adm', {'channels': 9}, 'network.channels is 9; it should be even'),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(name, options, words):
    with pytest.raises(UserError, match=words):
        nnx.eval_shape(lambda: build(name, 8, {}, **options))
