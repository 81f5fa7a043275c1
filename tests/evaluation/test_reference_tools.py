"""The numbers of the public tools, as fixtures/record_distances.py recorded them, for the same features."""

import json
import pathlib
import runpy

import numpy as np
import pytest

from genbench.evaluation import frechet_distance, inception_score, manifold_scores, moments, squared_mmd

FOLDER = pathlib.Path(__file__).with_name('fixtures')
RULE = runpy.run_path(str(FOLDER / 'record_distances.py'))
RECORDED = json.loads((FOLDER / 'distances.json').read_text())


@pytest.fixture(scope='module', params=RULE['CASES'])
def recorded(request):
    """(real, fake, the tools' numbers)."""
    wanted = RECORDED['cases'][request.param]
    real, fake = RULE['make'](request.param)
    assert np.abs(real).sum() + np.abs(fake).sum() == pytest.approx(wanted['checksum'], rel=1e-12)
    return real, fake, wanted


def test_fid_is_that_of_torch_fidelity_and_pytorch_fid(recorded):
    real, fake, wanted = recorded
    found = frechet_distance(*moments(real), *moments(fake))
    assert found == pytest.approx(wanted['fid'], rel=1e-6)
    assert found == pytest.approx(wanted['fid_by_matrix_root'], rel=1e-6)


def test_kid_is_that_of_torch_fidelity_on_the_same_subsets(recorded):
    real, fake, wanted = recorded
    draw, size = np.random.RandomState(RULE['KID_SEED']), RULE['KID_SIZE']
    values = [
        squared_mmd(*(points[draw.choice(len(points), size, replace=False)] for points in (real, fake)))
        for _ in range(RULE['KID_SUBSETS'])
    ]
    assert (np.mean(values), np.std(values)) == pytest.approx((wanted['kid_mean'], wanted['kid_sd']), rel=1e-6)


def test_precision_and_recall_are_those_of_torch_fidelity_density_and_coverage_those_of_prdc(recorded):
    real, fake, wanted = recorded
    found = manifold_scores(real, fake, RULE['PRECISION_K'], RULE['DENSITY_K'])
    assert found == pytest.approx({name: wanted[name] for name in found}, abs=1e-6)


def test_inception_score_is_that_of_torch_fidelity_in_the_same_order():
    logits = RULE['logits']()
    order = np.random.RandomState(RULE['SHUFFLE_SEED']).permutation(len(logits))
    wanted = RECORDED['inception_score']
    assert inception_score(logits[order], RULE['SPLITS'], seed=None) == pytest.approx((wanted['mean'], wanted['sd']))
