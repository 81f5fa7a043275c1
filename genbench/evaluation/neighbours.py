"""Distances between all points of two sets, one tile at a time, and the nearest neighbours that follow from them."""

from collections.abc import Iterator

import numpy as np

TILE = 2048  # points per side
PRECISION = 1e-12  # bound on the relative error of a squared distance
TIED = 4 * PRECISION  # squared distances that differ by less than this, relative to their size, count as equal
_BLOCK = 2**22  # values in a block of differences


class Centred:
    """Points (n, d) as float64 blocks about a centre shared by all sets. The array itself is not copied.

    Distances do not depend on the centre, but ‖x‖² + ‖y‖² − 2 x·y loses fewer digits when points are centred.
    """

    def __init__(self, points: np.ndarray, centre: np.ndarray):
        self._points, self._centre = points, centre
        self.norms = np.concatenate([np.square(self[rows]).sum(1) for rows in self.blocks()])

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._points[rows] - self._centre

    def at(self, indices: np.ndarray) -> 'Centred':
        """The points of these indices, about the same centre."""
        return Centred(self._points[indices], self._centre)

    def blocks(self) -> list[slice]:
        return [slice(start, min(start + TILE, len(self))) for start in range(0, len(self), TILE)]


def centred(*sets: np.ndarray) -> list[Centred]:
    """Centre the sets on the median of the first, which outliers do not move as they would move a mean."""
    rows = sets[0][:: -(-len(sets[0]) // TILE)]
    centre = np.median(rows.astype(np.float64), 0)
    return [Centred(points, centre) for points in sets]


def tiles(x: Centred, y: Centred, *, upper: bool = False) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """(rows of x, rows of y, their squared distances); `upper` leaves out tiles below the diagonal.

    Each squared distance has a relative error of at most `PRECISION`, and is 0 for equal points, whatever the other
    points are. Where ‖x‖² + ‖y‖² − 2 x·y cancels more digits than that, the differences are summed instead.
    """
    for rows in x.blocks():
        left = x[rows]
        for columns in y.blocks():
            if upper and columns.start < rows.start:
                continue
            right = y[columns]
            largest = x.norms[rows, None] + y.norms[columns]
            squared = left @ right.T
            squared *= -2
            squared += largest
            largest *= _rounding(left.shape[1]) / PRECISION
            _sum_differences(squared, left, right, squared < largest)
            yield rows, columns, squared


def _rounding(d: int) -> float:
    """Error of ‖x‖² + ‖y‖² − 2 x·y in float64, relative to ‖x‖² + ‖y‖²; that of d sums grows as a random walk."""
    return 8 * (d**0.5 + 8) * float(np.finfo(np.float64).eps)


def _sum_differences(squared: np.ndarray, left: np.ndarray, right: np.ndarray, chosen: np.ndarray) -> None:
    """Replace the chosen entries of a tile by Σ (x − y)²."""
    row, column = np.nonzero(chosen)
    step = max(1, _BLOCK // left.shape[1])
    for start in range(0, len(row), step):
        i, j = row[start : start + step], column[start : start + step]
        squared[i, j] = np.square(left[i] - right[j]).sum(1)


def neighbour_distances(points: Centred, k: int) -> np.ndarray:
    """Squared distances (n, k + 1) of each point to its neighbours in its own set; column j is the j-th, 0 itself."""
    least = np.full((len(points), k + 1), np.inf)

    def count_in(rows: slice, squared: np.ndarray) -> None:
        least[rows] = np.partition(np.concatenate([least[rows], squared], 1), k, axis=1)[:, : k + 1]

    for rows, columns, squared in tiles(points, points, upper=True):
        count_in(rows, squared)
        if rows != columns:
            count_in(columns, squared.T)
    least.sort(1)
    return least


def nearest(x: Centred, y: Centred, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the index (n,) of the point of y nearest to each x, and the distance (n,), which is exact if it is zero.

    Args:
      own: rows of y (n,) to leave out, one for each x: the point itself if x is part of y.
    """
    found, least = np.zeros(len(x), int), np.full(len(x), np.inf)
    for rows, columns, squared in tiles(x, y):
        if own is not None:
            place = own[rows] - columns.start
            within = np.flatnonzero((place >= 0) & (place < squared.shape[1]))
            squared[within, place[within]] = np.inf
        best = squared.argmin(1)
        value = squared[np.arange(len(best)), best]
        closer = value < least[rows]
        found[rows][closer] = best[closer] + columns.start
        least[rows][closer] = value[closer]
    distances = [np.linalg.norm(x[rows] - y[found[rows]], axis=1) for rows in x.blocks()]
    return found, np.concatenate(distances)
