"""Counts of modes on points whose modes are known, and on the data themselves."""

import numpy as np
import pytest
from scipy import stats

from genbench.data import plane
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import modes

CENTRES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_a_sample_counts_for_the_nearest_mode_within_three_deviations():
    points = np.array([[0.29, 0.0], [0.31, 0.0], [0.75, 0.0], [0.0, -0.2], [0.9, 0.9]])
    np.testing.assert_array_equal(modes.found(points, CENTRES, 0.1), [2, 1, 0])
    assert modes.found(points, CENTRES, 0.4).sum() == 5  # wide modes overlap, and no point counts twice


def test_the_summary_has_modes_share_and_divergence_from_equal_shares():
    told = modes.summary(np.array([30, 10, 0]), 50)
    assert (told['modes'], told['high_quality']) == (2, 0.8)
    assert told['kl'] == pytest.approx(stats.entropy([0.75, 0.25, 0], [1 / 3] * 3), rel=1e-12)
    nothing = modes.summary(np.zeros(3, int), 50)
    assert (nothing['modes'], nothing['high_quality']) == (0, 0) and np.isnan(nothing['kl'])


@pytest.mark.parametrize('name', ['ring', 'grid'])
def test_data_find_all_modes_and_as_many_are_near_as_the_rayleigh_distribution_says(name):
    centres, deviation = plane.MODES[name]
    points = plane.drawn(name, 'test')
    told = modes.summary(modes.found(points, centres, deviation), len(points))
    assert told['modes'] == len(centres) and told['kl'] < 1e-3
    assert told['high_quality'] == pytest.approx(stats.rayleigh.cdf(3), abs=0.003)


def test_a_data_set_without_known_modes_is_refused():
    with pytest.raises(UserError, match='known for ring and grid, not for pinwheel'):
        modes.known(DataSpec('pinwheel', (1, 2, 1), 4096))
