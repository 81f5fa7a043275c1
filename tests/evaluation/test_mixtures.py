"""FLD against its authors' code, and what it is for: unlike FD it tells copies of train images from new ones."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation import feature_likelihood_divergence, frechet_distance, moments

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
RECORDED = json.loads((FIXTURES / 'likelihoods.json').read_text())['cases']


@pytest.fixture(scope='module')
def make():
    spec = importlib.util.spec_from_file_location('record_likelihoods', FIXTURES / 'record_likelihoods.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make


@pytest.mark.parametrize('case', RECORDED)
def test_it_is_the_number_of_the_authors_code(make, case):
    """As closely as distances in float32, which theirs are, allow."""
    value, parts = feature_likelihood_divergence(*make(case))
    assert parts['nll'] == pytest.approx(RECORDED[case]['nll'], abs=1e-4)
    assert value == pytest.approx(RECORDED[case]['fld'], abs=0.02)
    assert value == pytest.approx(100 * (parts['nll'] - parts['baseline_nll']))


def test_unlike_fd_it_tells_copies_from_new_images():
    draw = np.random.RandomState(3)
    train, test, fresh = draw.standard_normal((3, 150, 6))
    copies, shifted = train + 1e-3 * draw.standard_normal(train.shape), fresh + 0.5
    fd = [frechet_distance(*moments(train), *moments(x)) for x in (fresh, copies)]
    fld = [feature_likelihood_divergence(train, test, x)[0] for x in (fresh, copies, shifted)]
    assert fd[0] > 100 * fd[1]
    assert fld[0] < fld[2] < fld[1]


def test_a_feature_that_is_constant_in_the_test_images_is_not_divided_by_zero(make):
    train, test, samples = make('half copies')
    wide = [np.hstack([points, np.full((len(points), 1), 0.1)]) for points in (train, test, samples)]
    assert np.isfinite(feature_likelihood_divergence(*wide)[0])


def test_too_few_train_images_are_said():
    with pytest.raises(UserError, match='train needs at least 4 rows'):
        feature_likelihood_divergence(np.zeros((3, 2)), np.ones((3, 2)), np.ones((3, 2)))
