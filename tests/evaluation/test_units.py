"""Active units of encoders whose posterior means are known."""

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config, rng
from genbench.data.sources import Arrays
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import harness, units
from genbench.families.inferred import monitors
from genbench.families.vae import VAE

SPEC = DataSpec('pixels', (1, 1, 1), levels=11)
SCALES = np.array([0.0, 0.01, 0.05, 0.3])  # of the means, for pixels of variance near 10
SPLIT = Arrays(np.random.default_rng(0).integers(0, 11, (700, 1, 1, 1)), np.zeros(700, int))


class Linear(VAE):
    """Means are multiples of the pixel; one log-scale differs from that of the prior."""

    def _encode(self, networks, images, given, key=None):
        mean = images.reshape(-1, 1) * jnp.asarray(SCALES)
        return mean, jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, -1.0]), mean.shape)

    def _observed(self, networks, z, x, given, key=None):
        return jnp.zeros(len(z)), {}


class Below(Linear):
    """A second layer whose mean follows the draw of the one above, and hardly the pixel."""

    def units(self, networks, images, given, keys, draws):
        place = rng.normal(draws, 'above', (4,)) + images.reshape(-1, 1) * jnp.asarray(SCALES)
        return place, jnp.zeros(place.shape)


class Bound:
    """In place of a blueprint."""

    def __init__(self, kind, **options):
        self.family = kind(config.resolve({'family': {'name': 'vae', 'latent': 4, **options}}), SPEC)

    def bind_state(self, state):
        return {}


def test_the_variance_and_the_divergence_are_those_of_all_images():
    variance, error, divergence = units.measure(Bound(Linear), {}, SPLIT, seed=0, batch_size=256)
    x = SPLIT.images.reshape(-1, 1) * SCALES
    np.testing.assert_allclose(variance, x.var(0, ddof=1), rtol=1e-4, atol=1e-6)
    wanted = (np.square(x) + np.exp([0, 0, 0, -2]) - 1).mean(0) / 2 + [0, 0, 0, 1]
    np.testing.assert_allclose(divergence, wanted, rtol=1e-4, atol=1e-6)
    assert (variance > 0.01).tolist() == [False, False, True, True]
    assert (error > 0).tolist() == [False, True, True, True]


def test_draws_of_a_layer_above_are_no_variance_over_images():
    """Their variance is 1. Two draws leave an error of one over the root of the number of images."""
    variance, error, _ = units.measure(Bound(Below), {}, SPLIT, seed=0, batch_size=256)
    wanted = np.square(SCALES) * SPLIT.images.var()
    np.testing.assert_allclose(variance, wanted, atol=5 * 2 / np.sqrt(700))
    assert 0.7 / np.sqrt(700) < error[0] < 1.4 / np.sqrt(700)  # the product of two normals has the variance 1


class Binary(Linear):
    """The mean is the binary pixel that the encoder sees."""

    def _encode(self, networks, images, given, key=None):
        mean = (images.reshape(-1, 1) > 0) * jnp.ones(4)
        return mean, jnp.zeros(mean.shape)


def test_the_draw_of_binary_images_is_variance_over_images():
    """Pixels near a half are on in half of the images, a variance of a quarter, although grey values hardly differ."""
    split = Arrays(np.full((700, 1, 1, 1), 5), np.zeros(700, int))
    variance, _, _ = units.measure(Bound(Binary, decoder='bernoulli'), {}, split, seed=0, batch_size=256)
    np.testing.assert_allclose(variance, 0.25, atol=0.01)


def test_a_batch_is_counted_in_the_same_way_while_training():
    place = jnp.array([[0.0, 0.09, 0.2], [0.0, -0.09, -0.2]])
    found = monitors(place, jnp.array([[0.0, 0.02, 0.0], [0.018, 0.0, 0.03]]))
    assert {name: int(value) for name, value in found.items()} == {'active_units': 1, 'collapsed_units': 1}


def test_a_run_has_a_row_of_it(trained, tmp_path):
    shutil.copytree(trained('vae'), tmp_path, dirs_exist_ok=True)
    (row,) = harness.evaluate(tmp_path, ['evaluation.metrics=active_units'], quiet=True)
    assert (row['metric'], row['kind']) == ('active_units', 'score')
    assert 0 <= row['details']['sure'] <= row['value'] <= row['details']['units'] == 16
    assert harness.evaluate(tmp_path, ['evaluation.metrics=active_units'], quiet=True) == []


def test_families_without_an_encoder_and_single_images_are_refused(trained, tmp_path):
    shutil.copytree(trained('gaussian'), tmp_path, dirs_exist_ok=True)
    with pytest.raises(UserError, match='active_units needs an encoder into normal latents .* this gaussian model'):
        harness.evaluate(tmp_path, ['evaluation.metrics=active_units'], quiet=True)
    with pytest.raises(UserError, match='variance over images; score two or more'):
        units.measure(Bound(Linear), {}, SPLIT.part(slice(0, 1)), seed=0, batch_size=8)
