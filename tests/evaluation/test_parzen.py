"""Parzen windows against scipy's densities, and the deviation that is chosen."""

import numpy as np
import pytest
from scipy import stats

from genbench.data.spec import DataSpec
from genbench.evaluation import parzen

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('scale', [0.1, 0.7])
def test_the_density_is_the_mean_of_normals_around_the_samples(scale):
    x, samples = RNG.normal(size=(5, 3)), RNG.normal(size=(7, 3))
    wanted = [np.mean([stats.multivariate_normal(s, scale**2).pdf(one) for s in samples]) for one in x]
    np.testing.assert_allclose(parzen.log_density(x, samples, [0.3, scale])[1], np.log(wanted), rtol=1e-5)


def test_blocks_of_images_change_nothing(monkeypatch):
    x, samples = RNG.normal(size=(11, 4)), RNG.normal(size=(6, 4))
    whole = parzen.log_density(x, samples, [0.5])
    monkeypatch.setattr(parzen, 'BLOCK', 4)
    np.testing.assert_allclose(parzen.log_density(x, samples, [0.5]), whole, rtol=1e-6)


def test_the_best_deviation_of_one_sample_is_the_root_mean_square_of_the_distances():
    x = RNG.normal(scale=0.3, size=(4000, 2))
    assert parzen.best_scale(x, np.zeros((1, 2))) == pytest.approx(np.sqrt((x**2).mean()), abs=0.005)


def test_values_lie_anywhere_in_their_bins_of_the_unit_interval():
    images = np.repeat(np.array([0, 3]), 500).reshape(1000, 1, 1, 1)
    values = parzen.spread(images, DataSpec('pixels', (1, 1, 1), 4))
    assert values[:500].min() >= 0 and values[:500].max() < 0.25 and values[500:].min() >= 0.75
    assert values[:500].mean() == pytest.approx(0.125, abs=0.01) and values.max() < 1
