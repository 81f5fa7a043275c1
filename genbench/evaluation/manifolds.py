"""How far two feature sets cover each other, measured with nearest-neighbour balls."""

import math

import numpy as np

from genbench.evaluation import neighbours
from genbench.evaluation.arrays import checked_sets


def manifold_scores(
    real: np.ndarray, fake: np.ndarray, precision_k: int | None = 3, density_k: int | None = 5
) -> dict[str, float]:
    """Precision, recall, density and coverage of (n, d) and (m, d) features from one pass over their distances.

    A point's ball reaches its k-th neighbour in its own set, not counting the point itself. Precision is the share of
    fakes inside a real ball, and recall the share of reals inside a fake ball, boundary included (Kynkäänniemi et al.
    2019, equations 1, 2). Density is the mean number of real balls around a fake, divided by k, and coverage the share
    of real balls with a fake inside, boundary excluded (Naeem et al. 2020, equations 5, 6). Distances are computed in
    float64, tile by tile. Distances that are equal up to their own rounding error count as equal, so that ties are
    resolved as in the formulas, however far away other points are.

    Args:
      precision_k: neighbours for precision and recall; None leaves them out.
      density_k: neighbours for density and coverage; None leaves them out.

    Raises:
      UserError: a set has no more images than neighbours, sets differ in width, or values are not finite.
    """
    most = max(precision_k or 0, density_k or 0)
    real, fake = checked_sets(most + 1, real=real, fake=fake)
    reals, fakes = neighbours.centred(real, fake)
    outer, inner = 1 + neighbours.TIED, 1 - neighbours.TIED
    real_radii = neighbours.neighbour_distances(reals, most)
    precise, covered = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    recalled, balls = np.zeros(len(real), bool), 0
    if precision_k:
        fake_radii = neighbours.neighbour_distances(fakes, precision_k)[:, precision_k]
    for rows, columns, squared in neighbours.tiles(reals, fakes):
        if precision_k:
            precise[columns] |= (squared <= outer * real_radii[rows, precision_k, None]).any(0)
            recalled[rows] |= (squared <= outer * fake_radii[columns]).any(1)
        if density_k:
            inside = squared < inner * real_radii[rows, density_k, None]
            covered[rows] |= inside.any(1)
            balls += int(np.count_nonzero(inside))
    scores: dict[str, float] = {}
    if precision_k:
        scores |= {'precision': float(precise.mean()), 'recall': float(recalled.mean())}
    if density_k:
        scores |= {'density': balls / (density_k * len(fake)), 'coverage': float(covered.mean())}
    return scores


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
    """(precision, recall) of `manifold_scores`."""
    scores = manifold_scores(real, fake, k, None)
    return scores['precision'], scores['recall']


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """(density, coverage) of `manifold_scores`."""
    scores = manifold_scores(real, fake, None, k)
    return scores['density'], scores['coverage']


def expected_coverage(reals: int, fakes: int, k: int = 5) -> float:
    """Return the expected coverage if reals and fakes are independent draws from one continuous distribution.

    A real ball contains no fake if the k points nearest to its centre, among the n − 1 other reals and the m fakes, are
    all real. Draws are exchangeable, so the probability of this is C(n − 1, k) / C(n − 1 + m, k) for every
    distribution. For n = m this is lemma 2 of Naeem et al. 2020.
    """
    return 1 - math.prod((reals - 1 - j) / (reals - 1 + fakes - j) for j in range(k))
