"""PSNR and SSIM against their definitions, written as loops."""

import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation import similarity


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 9, 10, 3)).astype(np.uint8)
    return x, np.clip(x + rng.normal(0, 30, x.shape), 0, 255).astype(np.uint8)


def test_an_error_of_one_level_everywhere_has_48_decibels(pictures):
    x = np.full((1, 8, 8, 1), 100, np.uint8)
    assert similarity.psnr(x, x + 1)[0] == pytest.approx(48.1308, abs=1e-4)
    assert similarity.psnr(x / 255, (x + 1) / 255, 1.0)[0] == pytest.approx(48.1308, abs=1e-4)
    assert similarity.psnr(x, x)[0] == np.inf


def test_structural_similarity_is_the_mean_over_windows(pictures):
    x, y = (part.astype(float) for part in pictures)
    found = []
    for top in range(3):
        for left in range(4):
            for channel in range(3):
                a, b = (part[0, top : top + 7, left : left + 7, channel].ravel() for part in (x, y))
                (vx, cov), (_, vy) = np.cov(a, b)
                luminance = (2 * a.mean() * b.mean() + 2.55**2) / (a.mean() ** 2 + b.mean() ** 2 + 2.55**2)
                found.append(luminance * (2 * cov + 7.65**2) / (vx + vy + 7.65**2))
    assert similarity.ssim(*pictures)[0] == pytest.approx(np.mean(found), rel=1e-9)
    np.testing.assert_allclose(similarity.ssim(pictures[0], pictures[0]), 1)


def test_an_image_smaller_than_a_window(pictures):
    with pytest.raises(UserError, match='at least 7 pixels'):
        similarity.ssim(*(part[:, :6] for part in pictures))
