"""Rates, AUC and their intervals, against brute force and simulation; and what attacks do to pictures."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from genbench.errors import UserError
from genbench.evaluation import attacks, detection, statistics


@pytest.mark.parametrize(('right', 'n'), [(0, 7), (3, 10), (10, 10), (495, 500)])
def test_the_interval_of_a_share_is_that_of_scipy(right, n):
    wanted = stats.binomtest(right, n).proportion_ci(0.95, 'exact')
    assert statistics.binomial(right, n) == pytest.approx((wanted.low, wanted.high))
    found = detection.share(np.arange(n) < right)
    assert found.value == right / n and found[1:] == statistics.binomial(right, n)


def test_auc_counts_pairs_and_halves_of_ties():
    draw = np.random.default_rng(0)
    marked, unmarked = draw.integers(0, 9, 40), draw.integers(-3, 6, 30)
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in marked for b in unmarked]
    found = detection.auc(marked, unmarked)
    assert found.value == pytest.approx(np.mean(pairs)) and found.low < found.value < found.high
    turned = detection.auc(unmarked, marked)
    assert turned == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


@pytest.mark.parametrize(('shift', 'm', 'n'), [(0.0, 30, 30), (1.0, 40, 25), (2.5, 60, 60)])
def test_intervals_of_auc_contain_the_truth(shift, m, n):
    draw, true = np.random.default_rng(1), stats.norm.cdf(shift / 2**0.5)
    found = [detection.auc(draw.standard_normal(m) + shift, draw.standard_normal(n)) for _ in range(600)]
    assert 0.925 < np.mean([one.low <= true <= one.high for one in found]) < 0.99


def test_the_interval_of_a_perfect_auc_has_a_width():
    few, many = (detection.auc(np.ones(n), np.zeros(n)) for n in (20, 500))
    assert few.value == few.high == 1 and 0.85 < few.low < 0.95 < 0.99 < many.low < 1
    assert detection.auc(np.zeros(20), np.ones(20)) == pytest.approx((0, 0, 1 - few.low))


def test_power_is_the_share_above_the_threshold_of_false_alarms():
    marked, unmarked = np.arange(0, 300, 3.0), np.arange(200.0)
    value = detection.power(marked, unmarked, 0.05).value  # 10 of 200 may be above: those from 190 on
    assert value == np.mean([score > 189 for score in marked])
    assert detection.power(np.ones(50), np.zeros(600))[:1] == (1.0,)


def test_power_has_no_lower_limit_with_too_few_unmarked_images():
    assert detection.power(np.ones(50), np.zeros(436)).low == 0
    assert detection.power(np.ones(50), np.zeros(437)).low > 0.9


@pytest.mark.parametrize('n', [100, 600])
def test_intervals_of_power_contain_the_truth(n):
    draw, true = np.random.default_rng(2), stats.norm.sf(stats.norm.ppf(0.99) - 2.5)
    found = [detection.power(draw.standard_normal(200) + 2.5, draw.standard_normal(n)) for _ in range(400)]
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.95
    assert all(one.low <= one.value <= one.high for one in found)


def test_the_interval_of_a_mean_is_students_if_values_differ_much():
    values = np.random.default_rng(3).beta(0.5, 0.5, 200)
    wanted = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert detection.mean(values)[1:] == pytest.approx(wanted)
    assert detection.mean(np.ones(1)) == (1.0, 0.0, 1.0)


def test_the_interval_of_a_mean_of_equal_values_has_a_width():
    wanted = stats.binomtest(60, 60).proportion_ci(0.95, 'exact')
    assert detection.mean(np.ones(60)) == pytest.approx((1, wanted.low, 1))
    value, low, high = detection.mean(np.full(60, 0.7))
    assert value == pytest.approx(0.7) and (low, high) == pytest.approx((0.7 * wanted.low, 1 - 0.3 * wanted.low))


@pytest.mark.parametrize('share', [0.005, 0.02])
def test_intervals_of_a_mean_contain_the_truth_where_few_values_differ(share):
    draw = np.random.default_rng(4)
    found = [detection.mean(1 - 0.5 * (draw.uniform(size=100) < share)) for _ in range(1000)]
    assert np.mean([one.low <= 1 - 0.5 * share <= one.high for one in found]) >= 0.94


@pytest.fixture
def pictures():
    """Smooth colour pictures, uint8 (2, 24, 32, 3)."""
    rows, columns = np.mgrid[:24, :32] / 32
    waves = [np.sin(6 * rows * (c + 1) + n) + np.cos(5 * columns - c) for n in range(2) for c in range(3)]
    return (127 + 60 * np.stack(waves).reshape(2, 3, 24, 32).transpose(0, 2, 3, 1)).astype(np.uint8)


@pytest.mark.parametrize('text', ['resize100', 'crop100', 'noise0', 'blur0'])
def test_an_attack_of_no_strength_changes_nothing(text, pictures):
    np.testing.assert_array_equal(attacks.attacked(pictures, text, 0), pictures)
    np.testing.assert_array_equal(attacks.attacked(pictures[..., :1], text, 0), pictures[..., :1])


@pytest.mark.parametrize(('weak', 'strong'), [('resize75', 'resize'), ('crop', 'crop40'), ('noise2', 'noise'),
                                              ('blur0.5', 'blur'), ('jpeg90', 'jpeg')])  # fmt: skip
def test_a_stronger_attack_changes_more_and_the_seed_decides_what(weak, strong, pictures):
    def change(text, seed=0):
        return np.abs(attacks.attacked(pictures, text, seed).astype(float) - pictures).mean()

    assert 0 < change(weak) < change(strong)
    assert change(strong) == change(strong)
    assert (change(strong) != change(strong, 1)) == strong.startswith(('crop', 'noise'))


def test_noise_has_its_deviation_and_a_jpeg_is_pillows(pictures):
    grey = np.full((1, 64, 64, 1), 128, np.uint8)
    assert attacks.attacked(grey, 'noise4', 0).astype(float).std() == pytest.approx(0.04 * 255, rel=0.05)
    file = io.BytesIO()
    Image.fromarray(pictures[0]).save(file, 'JPEG', quality=30)
    np.testing.assert_array_equal(attacks.attacked(pictures, 'jpeg30', 0)[0], np.asarray(Image.open(file)))


@pytest.mark.parametrize(('text', 'message'), [('jpg', 'Did you mean jpeg'), ('jpeg101', 'from 1 to 100'),
                                               ('crop0', 'from 1 to 100'), ('', 'no attack')])  # fmt: skip
def test_an_attack_that_does_not_exist(text, message):
    with pytest.raises(UserError, match=message):
        attacks.check(text)
