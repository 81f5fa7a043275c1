"""Distances between feature sets against closed forms and brute force."""

import itertools

import numpy as np
import pytest
from scipy import linalg

from genbench.errors import UserError
from genbench.evaluation import Moments, fd_infinity, frechet_distance, kernel_distance, moments, squared_mmd


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


def test_moments_of_a_stream_are_the_same_bits_however_it_is_batched():
    features = (50 + rng().normal(size=(2500, 4))).astype(np.float32)
    wanted = moments(features)
    for size in (1, 700, 1024, 2500):
        total = Moments(4)
        for start in range(0, 2500, size):
            total.add(features[start : start + size])
            if total.count == 1400:
                total.result()  # reading changes nothing
        assert total.count == 2500
        for found, part in zip(total.result(), wanted, strict=True):
            np.testing.assert_array_equal(found, part)
    np.testing.assert_allclose(wanted[1], np.cov(features.T, dtype=np.float64), rtol=1e-12, atol=1e-12)


def test_an_offset_costs_the_covariance_no_digits():
    features = rng().integers(-9, 10, (3000, 3))
    np.testing.assert_allclose(moments(features + 2.0**40)[1], np.cov(features.T), rtol=1e-12, atol=1e-12)


def test_moments_of_a_stream_say_what_does_not_fit():
    total = Moments(3)
    total.add(np.ones((1, 3)))
    with pytest.raises(UserError, match='at least 2 rows'):
        total.result()
    with pytest.raises(UserError, match='have 3 features, but the batch has 4'):
        total.add(np.ones((5, 4)))


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
    assert frechet_distance(*moments(x), *moments(y)) == pytest.approx(wanted, rel=1e-12)


def test_frechet_distance_of_covariances_without_a_common_direction():
    """Their product is zero, and with it the cross term."""
    sigma1, sigma2 = np.diag([1.0, 2, 0, 0, 0]), np.diag([0.0, 0, 3, 4, 5])
    assert frechet_distance(np.zeros(5), sigma1, np.ones(5), sigma2) == pytest.approx(5 + 15, rel=1e-12)


@pytest.mark.parametrize('n', [5, 200])
def test_frechet_distance_does_not_change_under_rotation_and_is_symmetric(n):
    x, y, q = rng(1).normal(size=(n, 10)), 1 + 2 * rng(2).normal(size=(n, 10)), rotation(10)
    distance = frechet_distance(*moments(x), *moments(y))
    assert frechet_distance(*moments(x @ q), *moments(y @ q)) == pytest.approx(distance, rel=1e-6)
    assert frechet_distance(*moments(y), *moments(x)) == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize('n', [5, 200])
def test_frechet_distance_of_a_set_to_itself_is_zero(n):
    stats = moments(rng().normal(size=(n, 10)))
    assert frechet_distance(*stats, *stats) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({0: np.zeros(3)}, r'shapes \(3,\) and \(2, 2\)'),
        ({1: np.eye(2)[:1]}, r'shapes \(2,\) and \(1, 2\)'),
        ({2: np.zeros(3), 3: np.eye(3)}, 'different numbers of features: 2 and 3'),
        ({1: np.full((2, 2), np.nan)}, 'contains NaN or infinity'),
        ({2: np.full(2, np.inf)}, 'contains NaN or infinity'),
    ],
)
def test_moments_that_do_not_fit_are_refused(changed, said):
    given = [np.zeros(2), np.eye(2), np.zeros(2), np.eye(2)]
    for place, value in changed.items():
        given[place] = value
    with pytest.raises(UserError, match=said):
        frechet_distance(*given)


@pytest.mark.parametrize('scale', [1.0, 1.3])
@pytest.mark.parametrize(('n', 'd'), [(400, 16), (1000, 64), (200, 64)])
def test_extrapolation_is_nearer_the_truth_than_the_distance_of_all_samples(n, d, scale):
    """Samples of N(0, s² I) against the exact moments of N(0, I): the truth is d (s − 1)²."""
    reference, truth = (np.zeros(d), np.eye(d)), d * (scale - 1) ** 2
    sets = [scale * rng(seed).normal(size=(n, d)) for seed in range(5)]
    plain = np.mean([frechet_distance(*reference, *moments(x)) for x in sets]) - truth
    extrapolated = np.mean([fd_infinity(reference, x)[0] for x in sets]) - truth
    assert plain > 0
    assert abs(extrapolated) < plain / 3


def test_extrapolation_depends_on_its_seed_alone_and_gives_the_error_of_the_fit():
    reference, x = (np.zeros(8), np.eye(8)), rng().normal(size=(300, 8))
    first = fd_infinity(reference, x, seed=1)
    assert first == fd_infinity(reference, x, seed=1)
    other, error = fd_infinity(reference, x, seed=2)
    assert 0 < abs(first[0] - other) < 10 * error


def test_extrapolation_needs_three_sizes():
    reference, x = (np.zeros(2), np.eye(2)), rng().normal(size=(6, 2))
    fd_infinity(reference, x, points=3)
    for given in ({'points': 2}, {'least': 5}, {'least': 60}):
        with pytest.raises(UserError, match='3 sizes'):
            fd_infinity(reference, x, **given)
    with pytest.raises(UserError, match='different numbers of features: 2 and 3'):
        fd_infinity(reference, rng().normal(size=(60, 3)))


def test_kernel_distance_is_the_mean_over_pairs():
    x, y = rng(1).normal(size=(6, 3)), rng(2).normal(size=(6, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [kernel(s[i], s[j]) for s in (x, y) for i, j in itertools.permutations(range(6), 2)]
    across = [kernel(a, b) for a in x for b in y]
    wanted = 2 * np.mean(within) - 2 * np.mean(across)
    assert squared_mmd(x, y) == pytest.approx(wanted)
    assert kernel_distance(x, y, subsets=4) == (pytest.approx(wanted), 0)  # every subset is the whole set


def test_squared_mmd_of_sets_of_different_size_has_the_same_mean():
    """The estimator is unbiased for any sizes: the mean over draws is the value of the population."""
    population = rng().normal(size=(30, 2)), 0.7 + rng(1).normal(size=(30, 2))
    kernels = [(a @ b.T / 2 + 1) ** 3 for a, b in itertools.product(population, population)]
    wanted = kernels[0].mean() + kernels[3].mean() - 2 * kernels[1].mean()
    draw = rng(2)
    values = [
        squared_mmd(population[0][draw.integers(30, size=5)], population[1][draw.integers(30, size=9)])
        for _ in range(3000)
    ]
    assert np.mean(values) == pytest.approx(wanted, abs=4 * np.std(values) / np.sqrt(3000))


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
