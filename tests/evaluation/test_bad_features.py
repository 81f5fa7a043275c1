"""Features that a measure cannot use: one line that says which set, and what it needs."""

import dataclasses

import numpy as np
import pytest

from genbench import evaluation
from genbench.errors import UserError

MEASURES = {  # what is measured of two sets, and the fewest rows
    'moments': (lambda x, y: evaluation.moments(x), 2),
    'fd_infinity': (lambda x, y: evaluation.fd_infinity(evaluation.moments(y), x), None),
    'kernel_distance': (evaluation.kernel_distance, 2),
    'squared_mmd': (evaluation.squared_mmd, 2),
    'precision_recall': (evaluation.precision_recall, 4),
    'density_coverage': (evaluation.density_coverage, 6),
    'manifold_scores': (evaluation.manifold_scores, 6),
    'inception_score': (lambda x, y: evaluation.inception_score(x), 10),
    'class_distance': (evaluation.class_distance, 1),
    'two_sample_test': (evaluation.two_sample_test, 4),
    'memorisation': (lambda x, y: evaluation.memorisation(x, y, y), 2),
    'memorisation of fakes': (lambda x, y: evaluation.memorisation(y, y, x), 2),
}
PAIRED = [name for name in MEASURES if name not in ('moments', 'inception_score')]


def features(n=20, d=3):
    return np.random.default_rng(n).normal(size=(n, d))


def one_line(error):
    return '\n' not in str(error.value)


@pytest.mark.parametrize('measure', MEASURES)
@pytest.mark.parametrize('poison', [np.nan, np.inf])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_features_that_are_not_finite_are_refused(measure, poison, dtype):
    x = features().astype(dtype)
    x[4, 1] = poison
    with pytest.raises(UserError, match='contains NaN or infinity') as error:
        MEASURES[measure][0](x, features(30))
    assert one_line(error)


@pytest.mark.parametrize('measure', [name for name, (_, least) in MEASURES.items() if least])
def test_too_few_rows_are_refused_with_the_number_needed(measure):
    function, least = MEASURES[measure]
    function(features(least), features(30))
    with pytest.raises(UserError, match=f'at least {least} rows') as error:
        function(features(least - 1), features(30))
    assert one_line(error)
    with pytest.raises(UserError, match=r'shape \(20,\)'):
        function(features()[:, 0], features(30))


@pytest.mark.parametrize('measure', PAIRED)
def test_sets_of_different_width_are_refused(measure):
    with pytest.raises(UserError, match='different numbers of features') as error:
        MEASURES[measure][0](features(d=3), features(30, d=4))
    assert one_line(error)


@pytest.mark.parametrize('measure', MEASURES)
def test_single_and_double_precision_and_integers_give_the_same(measure):
    x, y = (np.round(10 * features(n)).astype(int) for n in (20, 30))
    found = [MEASURES[measure][0](x.astype(kind), y.astype(kind)) for kind in (np.float32, np.float64, int)]
    found = [dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value for value in found]
    np.testing.assert_equal(found[1], found[0])
    np.testing.assert_equal(found[2], found[0])


@pytest.mark.parametrize('measure', MEASURES)
def test_values_whose_powers_overflow_are_refused(measure):
    with pytest.raises(UserError, match='beyond ±1e') as error:
        MEASURES[measure][0](features() * 1e150, features(30))
    assert one_line(error)


@pytest.mark.parametrize(
    ('sigma', 'words'),
    [
        (-np.eye(3), 'negative variance'),
        (np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]), 'not symmetric'),
        (np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1.0]]), 'correlations beyond'),
        (np.eye(3) * 1e150, 'beyond ±1e'),
    ],
)
def test_covariances_that_no_features_have_are_refused(sigma, words):
    with pytest.raises(UserError, match=words) as error:
        evaluation.frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), sigma)
    assert one_line(error)
