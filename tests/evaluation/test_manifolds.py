"""Precision, recall, density and coverage against brute force, and where distances tie."""

import numpy as np
import pytest

from genbench.evaluation import density_coverage, expected_coverage, manifold_scores, neighbours, precision_recall


def rng(seed=0):
    return np.random.default_rng(seed)


def by_hand(real, fake, precision_k, density_k):
    """The papers' formulas, ball by ball."""

    def balls(points, k):
        return [(p, sorted(np.linalg.norm(p - q) for q in points)[k]) for p in points]  # position 0 is the point itself

    def share_inside(points, others):
        return np.mean([any(np.linalg.norm(point - p) <= reach for p, reach in others) for point in points])

    strictly = np.array([[np.linalg.norm(p - f) < reach for f in fake] for p, reach in balls(real, density_k)])
    return {
        'precision': share_inside(fake, balls(real, precision_k)),
        'recall': share_inside(real, balls(fake, precision_k)),
        'density': strictly.sum() / (density_k * len(fake)),
        'coverage': strictly.any(1).mean(),
    }


@pytest.mark.parametrize('tile', [7, 2048])
@pytest.mark.parametrize(('precision_k', 'density_k'), [(1, 1), (3, 5), (5, 2)])
def test_scores_are_those_of_brute_force_whatever_the_tile(monkeypatch, tile, precision_k, density_k):
    monkeypatch.setattr(neighbours, 'TILE', tile)
    real, fake = rng(1).normal(size=(30, 2)), 1.5 + rng(2).normal(size=(40, 2))
    found = manifold_scores(real, fake, precision_k, density_k)
    assert found == pytest.approx(by_hand(real, fake, precision_k, density_k))
    assert 0.1 < found['precision'] < 1 and 0.1 < found['recall'] < 1
    assert precision_recall(real, fake, precision_k) == (found['precision'], found['recall'])
    assert density_coverage(real, fake, density_k) == (found['density'], found['coverage'])


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_identical_sets_score_one(dtype):
    """Density too: a ball holds its own centre and the k − 1 points that are nearer than the k-th."""
    x = (1000 + rng().normal(size=(60, 5))).astype(dtype)
    assert list(manifold_scores(x, x.copy()).values()) == pytest.approx([1, 1, 1, 1])


def test_disjoint_sets_score_zero():
    x = rng().normal(size=(60, 5))
    assert set(manifold_scores(x, x + 1000).values()) == {0}


def test_a_collapsed_model_is_precise_and_recalls_nothing():
    real = rng().normal(size=(200, 2))
    fake = real[np.argsort((real**2).sum(1))[0]] + 1e-6 * rng(1).normal(size=(50, 2))
    found = manifold_scores(real, fake)
    assert (found['precision'], found['recall']) == (1, pytest.approx(0, abs=0.01))
    assert found['coverage'] < 0.1


def test_a_point_on_the_boundary_is_inside_for_precision_and_outside_for_density():
    """Reals at 0 … 9 with balls of radius 1: the fake at 10 lies on the last one's boundary."""
    real, fake = np.arange(10.0)[:, None], np.array([[10.0], [-50.0]])
    assert precision_recall(real, fake, 1)[0] == 0.5
    assert density_coverage(real, fake, 1) == (0, 0)
    assert density_coverage(real, fake - 1e-6, 1) == (0.5, 0.1)


@pytest.mark.parametrize('offset', [0, 2**10, 2**30])
def test_ties_fall_the_same_way_far_from_zero(offset):
    real, fake = rng(1).integers(0, 4, (60, 3)) * 1.0, rng(2).integers(0, 6, (50, 3)) * 1.0
    wanted = by_hand(real, fake, 3, 5)
    turn = np.linalg.qr(rng(3).normal(size=(3, 3)))[0]
    assert manifold_scores(real + offset, fake + offset) == pytest.approx(wanted)
    assert manifold_scores(real @ turn, fake @ turn) == pytest.approx(wanted)


@pytest.mark.parametrize('size', [1e4, 1e6, 1e7])
@pytest.mark.parametrize('where', ['real', 'fake', 'both'])
def test_outliers_change_the_scores_by_no_more_than_the_formulas_say(size, where):
    """Five points at `size` times the spread of the others."""
    sets = {'real': rng(1).normal(size=(80, 6)), 'fake': 0.3 + rng(2).normal(size=(90, 6))}
    for seed, name in enumerate(('real', 'fake') if where == 'both' else (where,)):
        sets[name][:5] = size * (1 + rng(3 + seed).normal(size=(5, 6)))
    found = manifold_scores(**sets)
    assert found == pytest.approx(by_hand(**sets, precision_k=3, density_k=5))
    assert all(0.05 < value < 1 for value in found.values())


def test_two_clusters_far_apart_are_each_scored_by_their_own_spread():
    """No centre is near both, so that ‖x‖² + ‖y‖² − 2 x·y holds no digit of the distances within one of them."""
    real, fake = rng(1).normal(size=(80, 3)), 0.5 + rng(2).normal(size=(80, 3))
    real[40:] += 2.0**33
    fake[40:] += 2.0**33
    assert manifold_scores(real, fake) == pytest.approx(by_hand(real, fake, 3, 5))


@pytest.mark.parametrize(('reals', 'fakes', 'k', 'd'), [(60, 60, 5, 2), (100, 20, 5, 8), (20, 90, 3, 3)])
def test_expected_coverage_is_the_mean_over_draws_of_one_distribution(reals, fakes, k, d):
    draw, found = rng(4), []
    for _ in range(300):
        found.append(density_coverage(draw.normal(size=(reals, d)), draw.normal(size=(fakes, d)), k)[1])
    error = np.std(found) / len(found) ** 0.5
    assert expected_coverage(reals, fakes, k) == pytest.approx(np.mean(found), abs=4 * error)
    assert error < 0.01


@pytest.mark.parametrize(('reals', 'fakes', 'expected'), [(500, 500, 0.97), (5000, 1000, 0.60)])
def test_coverage_of_equal_distributions_depends_on_the_sizes_of_the_sets(reals, fakes, expected):
    assert expected_coverage(reals, fakes) == pytest.approx(expected, abs=0.005)
