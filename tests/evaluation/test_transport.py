"""The sliced Wasserstein distance and the Vendi score against closed forms, brute force and their limits."""

import numpy as np
import pytest
from scipy import optimize, stats

from genbench.errors import UserError
from genbench.evaluation import monge_distance, sliced_wasserstein, vendi_score

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)), RNG.normal(size=(25, 3)) + 1


def by_transport(u, v):
    """W₂² of two sets on the line as a linear programme over couplings, which knows nothing of sorting."""
    n, m = len(u), len(v)
    cost = np.square(u[:, None] - v[None, :]).ravel()
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return optimize.linprog(cost, A_eq=np.vstack([rows, columns]), b_eq=weights).fun


@pytest.mark.parametrize(('n', 'm'), [(12, 12), (12, 8), (7, 10)])
def test_on_the_line_it_is_the_cost_of_the_best_coupling(n, m):
    value, _ = sliced_wasserstein(X[:n, :1], Y[:m, :1], slices=3)
    assert value == pytest.approx(by_transport(X[:n, 0], Y[:m, 0]), rel=1e-9)


def test_a_shift_costs_its_square_over_the_dimension():
    """E (θ·s)² = |s|² / d for a uniform direction."""
    shift = np.array([3.0, 0, 4])
    value, error = sliced_wasserstein(X, X + shift, slices=4000)
    assert abs(value - 25 / 3) < 4 * error and error < 0.2


def test_mind_of_a_shift_is_three_times_its_square():
    """3 d E (θ·s)² = 3 |s|², in as many dimensions as there are."""
    for d in (3, 7):
        value, error = monge_distance(np.zeros((4, d)), np.eye(d)[:1].repeat(4, 0) * 5, slices=4000)
        assert abs(value - 75) < 4 * error and error < 2


def test_it_is_symmetric_seeded_and_nothing_between_a_set_and_itself():
    assert sliced_wasserstein(X, Y) == pytest.approx(sliced_wasserstein(Y, X))
    assert sliced_wasserstein(X, np.repeat(X[::-1], 2, 0))[0] == pytest.approx(0, abs=1e-20)
    assert sliced_wasserstein(X, Y, seed=1) != sliced_wasserstein(X, Y)


def test_orthogonal_images_count_each_and_copies_once():
    eye = np.eye(7)
    assert vendi_score(eye) == pytest.approx(7)
    assert vendi_score(np.concatenate([eye, eye, 5 * eye])) == pytest.approx(7)
    assert vendi_score(np.ones((9, 4))) == pytest.approx(1)


@pytest.mark.parametrize('d', [2, 60])
def test_it_is_the_entropy_of_the_whole_similarity_matrix(d):
    """With two clusters at an angle the eigenvalues are (1 ± cos) / 2; otherwise those of K / n, whatever n and d."""
    if d == 2:
        points = np.array([[1.0, 0]] * 5 + [[0.6, 0.8]] * 5)
        wanted = np.exp(stats.entropy([0.8, 0.2]))
    else:
        points = RNG.normal(size=(30, d))
        cosines = 1 - np.array([[_cosine_distance(a, b) for b in points] for a in points])
        wanted = np.exp(stats.entropy(np.abs(np.linalg.eigvals(cosines / 30))))
    assert vendi_score(points) == pytest.approx(wanted, rel=1e-9)


def _cosine_distance(a, b):
    return 1 - a @ b / np.sqrt(a @ a * (b @ b))


def test_an_image_without_a_direction_is_said():
    with pytest.raises(UserError, match='all features of one image are zero'):
        vendi_score(np.zeros((2, 3)))
