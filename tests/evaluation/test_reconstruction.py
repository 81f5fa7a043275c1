"""Reconstructions of first stages that are known, and rows of a run."""

import dataclasses
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data.sources import Arrays
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import harness, reconstruction
from genbench.evaluation.reconstruction import Kept
from genbench.families.spaces import FirstStage

SPEC = DataSpec('images', (8, 8, 1), levels=16)
IMAGES = np.random.default_rng(0).integers(1, 15, (21, 8, 8, 1))


class Halves(FirstStage):
    """z is the image itself, which loses its lowest bit; its code is the first pixel."""

    name, spec, conditional, num_codes = 'halves', SPEC, False, 20
    config = types.SimpleNamespace(train=types.SimpleNamespace(seed=0))

    def posterior(self, networks, images):
        return jnp.asarray(images, jnp.float32), None

    def decode(self, networks, z):
        return 2 * (z.astype(int) // 2)

    def codes(self, networks, images):
        return images[:, :1, :1, 0]


def test_all_images_are_kept_in_their_order_and_all_codes_counted():
    kept = reconstruction.reconstruct(Held(), {}, Arrays(IMAGES, np.zeros(21, int)), seed=0, batch_size=8)
    np.testing.assert_array_equal(kept.images, IMAGES // 2 * 2)
    np.testing.assert_array_equal(kept.uses, np.bincount(IMAGES[:, 0, 0, 0], minlength=20))


class Held:
    """In place of a blueprint."""

    family = Halves()

    def bind_state(self, state):
        return None


def measured(name, kept):
    weights = types.SimpleNamespace(evaluation=types.SimpleNamespace(spec=SPEC))
    return reconstruction.MEASURES[name](weights, IMAGES, kept)


def test_a_shift_by_one_level_has_its_ratio_and_equal_images_the_largest():
    """One of 15 steps between 0 and 255 is 17."""
    value, error, _ = measured('reconstruction_psnr', Kept(IMAGES + 1, np.zeros(0, int)))
    assert value == pytest.approx(20 * np.log10(255 / 17)) and error == pytest.approx(0, abs=1e-9)
    assert measured('reconstruction_psnr', Kept(IMAGES, np.zeros(0, int)))[0] == 99
    assert measured('reconstruction_ssim', Kept(IMAGES, np.zeros(0, int)))[0] == pytest.approx(1)


def test_the_distance_of_reconstructions_is_that_of_a_shift(monkeypatch):
    """Equal covariances, and means that are one level apart in each of four features."""
    monkeypatch.setattr(reconstruction.reference, 'network_images', lambda images, spec, network: images)
    features = lambda images, names: {'features': images.reshape(len(images), -1)[:, :4].astype(float)}  # noqa: E731
    real = types.SimpleNamespace(network=types.SimpleNamespace(extract=features))
    weights = types.SimpleNamespace(evaluation=types.SimpleNamespace(spec=SPEC, real=real))
    for shift, wanted in ((0, 0), (1, 4), (3, 36)):
        value, _, _ = reconstruction.MEASURES['reconstruction_fd'](weights, IMAGES, Kept(IMAGES + shift, np.zeros(0)))
        assert value == pytest.approx(wanted, abs=1e-4)


def test_the_perplexity_of_equally_frequent_codes_is_their_number():
    value, _, details = measured('codes_used', Kept(IMAGES, np.array([0, 7, 7, 0, 7])))
    assert value == 3 and details == {'codes': 5, 'perplexity': pytest.approx(3)}


def test_a_run_has_rows_of_it_once_and_a_fid_with_the_published_inception_alone(trained, tmp_path, monkeypatch):
    shutil.copytree(trained('vq_vae'), tmp_path, dirs_exist_ok=True)
    asked = ['evaluation.metrics=' + ','.join(reconstruction.METRICS), 'evaluation.features.name=pixels']
    rows = {row['metric']: row for row in harness.evaluate(tmp_path, asked, quiet=True)}
    assert set(rows) == {*reconstruction.METRICS}
    assert rows['reconstruction_fd']['protocol']['features'] == 'pixels' and rows['reconstruction_fd']['value'] > 0
    assert 1 <= rows['codes_used']['value'] <= rows['codes_used']['details']['codes']
    assert harness.evaluate(tmp_path, asked, quiet=True) == []
    real = reconstruction.reference.feature_network
    standing = lambda *args: dataclasses.replace(real(*args), published=True)  # noqa: E731
    monkeypatch.setattr(reconstruction.reference, 'feature_network', standing)
    (named,) = harness.evaluate(tmp_path, asked, quiet=True)
    assert named['metric'] == 'reconstruction_fid'
    assert named['value'] == pytest.approx(rows['reconstruction_fd']['value'], rel=1e-6)


@pytest.mark.parametrize(
    ('name', 'metric', 'message'),
    [('gaussian', 'reconstruction_psnr', 'This gaussian model has no encoder and decoder'),
     ('vae', 'codes_used', 'this vae model has latents that are no codes')],
)  # fmt: skip
def test_what_has_no_reconstructions_or_codes_is_refused(name, metric, message, trained, tmp_path):
    shutil.copytree(trained(name), tmp_path, dirs_exist_ok=True)
    with pytest.raises(UserError, match=message):
        harness.evaluate(tmp_path, [f'evaluation.metrics={metric}'], quiet=True)
