"""Mean, spread and paired intervals over seeds agree with scipy's and say when there is too little for one."""

import numpy as np
import pytest
from scipy import stats

from genbench.evaluation import statistics


def test_a_paired_interval_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(3, 1, 6), rng.normal(2, 1, 6)
    difference = statistics.paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert difference.interval() == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx((ours - theirs).mean()) and difference.n == 6


def test_only_shared_seeds_are_paired():
    assert statistics.paired({0: 5.0, 1: 6.0, 2: 100.0}, {1: 4.0, 0: 4.0, 7: 0.0}).mean == 1.5
    assert statistics.paired({0: 5.0}, {1: 4.0}) is None


def test_the_spread_is_of_a_sample_and_one_value_has_none():
    values = [1.0, 2.0, 4.0]
    assert statistics.spread(values).sd == pytest.approx(np.std(values, ddof=1))
    one = statistics.spread([2.5])
    assert (one.mean, one.sd, one.n, one.interval()) == (2.5, None, 1, None)
