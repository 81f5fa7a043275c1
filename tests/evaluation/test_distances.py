"""Distances between feature sets against closed forms and brute force."""

import itertools

import numpy as np
import pytest
from scipy import linalg

from genbench.errors import UserError
from genbench.evaluation.distances import frechet_distance, kernel_distance, moments, precision_recall


def rng(seed=0):
    return np.random.default_rng(seed)


def rotation(d, seed=0):
    return np.linalg.qr(rng(seed).normal(size=(d, d)))[0]


def gaussian(d, seed):
    """A mean and a covariance."""
    a = rng(seed).normal(size=(d, 2 * d))
    return rng(seed + 100).normal(size=d), a @ a.T / d


@pytest.mark.parametrize('n', [2, 5, 50])
def test_moments_are_numpys(n):
    features = 100 + rng().normal(size=(n, 6))
    mean, covariance = moments(features)
    np.testing.assert_allclose(mean, features.mean(0))
    np.testing.assert_allclose(covariance, np.cov(features.T), atol=1e-10)


@pytest.mark.parametrize('rank', [0, 3, 8])
def test_frechet_distance_of_commuting_covariances(rank):
    """‖Δμ‖² + Σ (√λ₁ − √λ₂)²; eigenvalues past `rank` are zero."""
    q, (l1, l2) = rotation(8), rng().uniform(0, 2, (2, 8))
    l1[rank:] = 0
    mu1, mu2 = rng(1).normal(size=(2, 8))
    found = frechet_distance(mu1, q * l1 @ q.T, mu2, q * l2 @ q.T)
    assert found == pytest.approx(((mu1 - mu2) ** 2).sum() + ((np.sqrt(l1) - np.sqrt(l2)) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize('d', [1, 4, 30])
def test_frechet_distance_is_the_formula_with_a_matrix_root(d):
    (mu1, sigma1), (mu2, sigma2) = gaussian(d, 1), gaussian(d, 2)
    root = linalg.sqrtm(sigma1 @ sigma2).real
    wanted = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root)
    assert frechet_distance(mu1, sigma1, mu2, sigma2) == pytest.approx(wanted, rel=1e-6)


def test_frechet_distance_of_fewer_rows_than_dimensions():
    """With centred rows A and B, Tr (Σ₁Σ₂)^½ is the nuclear norm of A Bᵀ / √((n − 1) (m − 1))."""
    x, y = rng(1).normal(size=(5, 12)), rng(2).normal(size=(7, 12))
    a, b = (x - x.mean(0)) / 2, (y - y.mean(0)) / np.sqrt(6)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum()
    wanted -= 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize('n', [5, 200])
def test_frechet_distance_does_not_change_under_rotation_and_is_symmetric(n):
    x, y, q = rng(1).normal(size=(n, 10)), 1 + 2 * rng(2).normal(size=(n, 10)), rotation(10)
    distance = frechet_distance(*moments(x), *moments(y))
    assert frechet_distance(*moments(x @ q), *moments(y @ q)) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(*moments(y), *moments(x)) == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize('n', [5, 200])
def test_frechet_distance_of_a_set_to_itself_is_zero(n):
    stats = moments(rng().normal(size=(n, 10)))
    assert frechet_distance(*stats, *stats) == pytest.approx(0, abs=1e-5)


def test_kernel_distance_is_the_mean_over_pairs():
    x, y = rng(1).normal(size=(6, 3)), rng(2).normal(size=(6, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [kernel(s[i], s[j]) for s in (x, y) for i, j in itertools.permutations(range(6), 2)]
    across = [kernel(a, b) for a in x for b in y]
    mean, std = kernel_distance(x, y, subsets=4)
    assert mean == pytest.approx(2 * np.mean(within) - 2 * np.mean(across))
    assert std == pytest.approx(0, abs=1e-12)  # every subset is the whole set


def test_kernel_distance_has_mean_zero_under_the_null():
    values = [kernel_distance(*rng(seed).normal(size=(2, 20, 3)), subsets=1)[0] for seed in range(400)]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 20)
    shifted = [kernel_distance(x, y + 0.5, subsets=1)[0] for x, y in rng().normal(size=(400, 2, 20, 3))]
    assert np.mean(shifted) > 10 * np.std(shifted) / 20


def test_kernel_distance_averages_over_subsets_drawn_from_the_seed():
    x, y = rng(1).normal(size=(40, 3)), rng(2).normal(size=(50, 3))
    first = kernel_distance(x, y, subsets=20, subset_size=10, seed=1)
    assert first == kernel_distance(x, y, subsets=20, subset_size=10, seed=1)
    assert first != kernel_distance(x, y, subsets=20, subset_size=10, seed=2)
    whole, _ = kernel_distance(x[:40], y[:40], subsets=1)
    many, std = kernel_distance(x, y[:40], subsets=2000, subset_size=10)
    assert many == pytest.approx(whole, abs=4 * std / np.sqrt(2000))


def test_identical_sets_have_precision_and_recall_one():
    x = 1000 + rng().normal(size=(60, 5))
    assert precision_recall(x, x.copy()) == (1, 1)


def test_disjoint_sets_have_precision_and_recall_zero():
    x = rng().normal(size=(60, 5))
    assert precision_recall(x, x + 1000) == (0, 0)


def test_a_collapsed_model_is_precise_and_recalls_nothing():
    real = rng().normal(size=(200, 2))
    fake = real[np.argsort((real**2).sum(1))[0]] + 1e-6 * rng(1).normal(size=(50, 2))
    assert precision_recall(real, fake) == (1, pytest.approx(0, abs=0.01))


@pytest.mark.parametrize('k', [1, 3, 5])
def test_precision_and_recall_are_those_of_brute_force(k):
    real, fake = rng(1).normal(size=(30, 2)), 1.5 + rng(2).normal(size=(40, 2))

    def inside(point, points):
        balls = ((p, sorted(np.linalg.norm(p - q) for q in points)[k]) for p in points)  # position 0 is p itself
        return any(np.linalg.norm(point - p) <= radius for p, radius in balls)

    wanted = np.mean([inside(f, real) for f in fake]), np.mean([inside(r, fake) for r in real])
    found = precision_recall(real, fake, k)
    assert found == pytest.approx(wanted)
    assert min(found) > 0.1 and max(found) < 1


MEASURES = {
    'moments': lambda x, y: moments(x),
    'kernel_distance': kernel_distance,
    'precision_recall': precision_recall,
}


@pytest.mark.parametrize('measure', MEASURES)
@pytest.mark.parametrize('poison', [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(measure, poison):
    x, y = rng().normal(size=(2, 20, 3))
    x[4, 1] = poison
    with pytest.raises(UserError, match='not finite'):
        MEASURES[measure](x, y)


@pytest.mark.parametrize(('measure', 'least'), [('moments', 2), ('kernel_distance', 2), ('precision_recall', 4)])
def test_too_few_rows_are_refused_with_the_number_needed(measure, least):
    x, y = rng().normal(size=(2, 20, 3))
    MEASURES[measure](x[:least], y)
    with pytest.raises(UserError, match=f'at least {least} rows'):
        MEASURES[measure](x[: least - 1], y)
    with pytest.raises(UserError, match=r'shape \(20,\)'):
        MEASURES[measure](x[:, 0], y)
