"""The Inception Score's ends of scale, and the two-sample test where the best accuracy is known."""

import numpy as np
import pytest
from scipy import stats

from genbench.errors import UserError
from genbench.evaluation import inception_score, two_sample_test


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize('confidence', [50, 1e4])
@pytest.mark.parametrize('classes', [2, 7])
def test_sure_and_even_predictions_score_the_number_of_classes(classes, confidence):
    logits = confidence * np.tile(np.eye(classes), (30, 1))
    assert inception_score(logits, seed=None) == (pytest.approx(classes), pytest.approx(0, abs=1e-9))
    assert inception_score(logits, splits=1)[0] == pytest.approx(classes)


def test_predictions_that_are_all_the_same_score_one():
    assert inception_score(np.tile(rng().normal(size=7), (40, 1))) == pytest.approx((1, 0))


def test_a_class_that_a_split_never_shows_is_no_trouble():
    """Every split holds one class, each for certain: nothing is learnt from the image."""
    assert inception_score(1e4 * np.repeat(np.eye(10), 5, axis=0), seed=None) == pytest.approx((1, 0))


def test_the_shuffle_is_of_the_seed():
    logits = rng().normal(size=(95, 4))
    assert inception_score(logits, seed=3) == inception_score(logits, seed=3)
    assert inception_score(logits, seed=3) != inception_score(logits, seed=4)


def test_the_score_needs_an_image_a_split():
    with pytest.raises(UserError, match='at least 10 rows'):
        inception_score(np.zeros((9, 4)))


def test_samples_of_the_same_distribution_are_told_at_chance():
    """The 95% interval holds 0.5 in about 38 of 40 cases; fewer than 33 has a probability below 0.1%."""
    tests = [two_sample_test(*rng(seed).normal(size=(2, 120, 6)), seed=seed) for seed in range(40)]
    assert sum(test.low <= 0.5 <= test.high for test in tests) >= 33
    assert np.mean([test.accuracy for test in tests]) == pytest.approx(0.5, abs=0.03)


def test_separated_samples_are_told_for_certain():
    found = two_sample_test(rng(1).normal(size=(200, 6)), 10 + rng(2).normal(size=(300, 6)))
    assert (found.accuracy, found.high, found.n) == (1, 1, 200)
    assert found.low > 0.97


@pytest.mark.parametrize('kind', ['shift', 'scale'])
def test_the_detector_is_nearly_the_best_there_is(kind):
    """N(0, I) against N(m, I) and against N(0, s² I): the likelihood ratio's accuracy, in closed form."""
    d, n, shift, scale = 4, 6000, 1.5, 1.8
    real, fake = rng(1).normal(size=(2, n, d))
    if kind == 'shift':
        fake = fake + shift / np.sqrt(d)
        best = stats.norm.cdf(shift / 2)
    else:
        fake = scale * fake
        boundary = 2 * d * np.log(scale) / (1 - scale**-2)
        best = (stats.chi2.cdf(boundary, d) + stats.chi2.sf(boundary / scale**2, d)) / 2
    found = two_sample_test(real.astype(np.float32), fake.astype(np.float32))
    assert found.accuracy == pytest.approx(best, abs=0.02)
    assert found.low < best + 0.01 and best - 0.01 < found.high and found.low > 0.5


def test_the_interval_is_that_of_clopper_and_pearson():
    found = two_sample_test(rng(1).normal(size=(80, 3)), 0.5 + rng(2).normal(size=(90, 3)))
    wanted = stats.binomtest(round(found.accuracy * found.n), found.n).proportion_ci(method='exact')
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_feature_that_never_changes_is_no_trouble():
    real, fake = rng(1).normal(size=(2, 50, 3))
    real[:, 1] = fake[:, 1] = 4
    assert np.isfinite(two_sample_test(real, fake).accuracy)
