"""Mean, spread and paired intervals over seeds agree with scipy's and say when there is too little for one."""

import numpy as np
import pytest
from scipy import stats

from genbench.evaluation import statistics
from genbench.evaluation.statistics import Replicate


def plain(values):
    """{seed: a number without noise of its own}"""
    return {seed: Replicate(float(value)) for seed, value in enumerate(values)}


def test_a_paired_interval_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(3, 1, 6), rng.normal(2, 1, 6)
    difference = statistics.paired(plain(ours), plain(theirs))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert difference.interval() == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx((ours - theirs).mean()) and difference.n == 6


def test_only_shared_seeds_are_paired():
    ours = {0: Replicate(5.0), 1: Replicate(6.0), 2: Replicate(100.0)}
    assert statistics.paired(ours, {1: Replicate(4.0), 0: Replicate(4.0), 7: Replicate(0.0)}).mean == 1.5
    assert statistics.paired({0: Replicate(5.0)}, {1: Replicate(4.0)}) is None


def test_one_pair_has_no_interval():
    sets = {'source': statistics.SAMPLING, 'sets': (4.0, 6.0), 'std_err': 1.0, 'freedom': 1}
    found = statistics.paired({0: Replicate(5.0, **sets)}, {0: Replicate(4.0, **sets)})
    assert (found.mean, found.interval()) == (1.0, None)


def test_a_difference_of_nearly_equal_errors_is_that_of_welch():
    """With many degrees of freedom, where the weights of `statistics` are those of Welch."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(3, 1, 400), rng.normal(2, 2, 300)
    one, other = (statistics.over_seeds(list(plain(values).values())) for values in (ours, theirs))
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert statistics.difference(one, other).interval() == pytest.approx((expected.low, expected.high), rel=1e-4)


def test_the_spread_is_of_a_sample_and_one_value_has_none():
    values = [1.0, 2.0, 4.0]
    found = statistics.over_seeds(list(plain(values).values()))
    assert found.sd == found.sd_seeds == pytest.approx(np.std(values, ddof=1))
    one = statistics.over_seeds([Replicate(2.5)])
    assert (one.mean, one.sd, one.n, one.interval()) == (2.5, None, 1, None)
