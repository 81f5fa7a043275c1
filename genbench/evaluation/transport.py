"""Measures of sets that need no moments: Wasserstein distances, sliced or whole, and the Vendi score."""

import numpy as np
from scipy import optimize
from scipy.spatial import distance

from genbench.errors import UserError
from genbench.evaluation.arrays import checked, checked_sets

MOST_ROWS = 20_000  # the Vendi score needs the eigenvalues of such a matrix; a larger one takes too long
MOST_ASSIGNED = 5_000  # points of each of two sets that are assigned to one another


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, *, slices: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean squared Wasserstein distance of order 2 between projections of (n, d) and (m, d), and its standard error.

    Bonneel et al. 2015, definition 2: the mean of W₂² over directions θ, uniform on the sphere, of the projections
    θ·x and θ·y. On the line W₂² is the integral of the squared difference of the quantile functions, which is exact
    for any n and m. The distance is squared, as the Fréchet distance is, and the mean is not multiplied by d.

    Args:
      slices: number of directions; the standard error is over them.
      seed: seed of the directions.

    Raises:
      UserError: fewer than two rows, sets of different width, or values that are not finite.
    """
    x, y = checked_sets(x=x, y=y)
    edges, lengths = _common_edges(len(x), len(y))
    rows = np.minimum((edges * len(x)).astype(int), len(x) - 1), np.minimum((edges * len(y)).astype(int), len(y) - 1)
    draw = np.random.Generator(np.random.Philox(seed))
    values = []
    for start in range(0, slices, 64):
        directions = draw.normal(size=(x.shape[1], min(64, slices - start)))
        directions /= np.linalg.norm(directions, axis=0)
        first, second = (np.sort(points.astype(np.float64) @ directions, axis=0) for points in (x, y))
        values.append(lengths @ np.square(first[rows[0]] - second[rows[1]]))
    found = np.concatenate(values)
    error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
    return float(found.mean()), float(error)


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """The Wasserstein distance of order 2 between two sets of n points, (n, d) each: √(min Σ ‖x_i − y_π(i)‖² / n).

    It is exact, by an assignment in O(n³) operations. Between two sets from one distribution it is not zero.

    Raises:
      UserError: the sets differ in size or width, are too large, or hold values that are not finite.
    """
    x, y = checked_sets(x=x, y=y)
    if len(x) != len(y) or len(x) > MOST_ASSIGNED:
        raise UserError(f'The Wasserstein distance assigns points one to one; take two sets of at most '
                        f'{MOST_ASSIGNED:,} points and of one size, not {len(x):,} and {len(y):,}.')  # fmt: skip
    cost = distance.cdist(x, y, 'sqeuclidean')
    rows, columns = optimize.linear_sum_assignment(cost)
    return float(np.sqrt(cost[rows, columns].mean()))


def monge_distance(x: np.ndarray, y: np.ndarray, *, slices: int = 1000, seed: int = 0) -> tuple[float, float]:
    """3 d times `sliced_wasserstein` of (n, d) and (m, d), and its standard error (Berthet et al. 2026).

    In the features of the published Inception this is MIND, the Monge Inception Distance. Sets of different size are
    compared whole, where torch-fidelity takes as many of the larger set as the smaller one has.
    """
    value, error = sliced_wasserstein(x, y, slices=slices, seed=seed)
    factor = 3 * np.shape(x)[1]
    return factor * value, factor * error


def _common_edges(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints and lengths of the parts of [0, 1] on which both quantile functions (n and m values) are constant."""
    places = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)  # as integers, in units of 1 / (n m)
    return (places[:-1] + places[1:]) / (2 * n * m), np.diff(places) / (n * m)


def vendi_score(features: np.ndarray) -> float:
    """Return the effective number of different images: exp of the entropy of the eigenvalues of K / n.

    Friedman & Dieng 2023, definition 3.1, with the cosine of features (n, d) as the similarity K: 1 for images that are
    all alike, n for images that are all orthogonal. K / n and XᵀX / n have the same non-zero eigenvalues, so the
    smaller of the two is factored.

    Raises:
      UserError: there are no rows, values are not finite, a row is all zeros, or the matrix is too large to factor.
    """
    features = checked(features, 'features', 1).astype(np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    if not norms.all():
        raise UserError('The Vendi score compares features by their angles, but all features of one image are zero.')
    n, d = features.shape
    if min(n, d) > MOST_ROWS:
        raise UserError(f'The Vendi score needs the eigenvalues of a {min(n, d)}×{min(n, d)} matrix; use at most '
                        f'{MOST_ROWS} images.')  # fmt: skip
    rows = features / norms
    eigenvalues = np.linalg.eigvalsh((rows @ rows.T if n < d else rows.T @ rows) / n)
    positive = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))
