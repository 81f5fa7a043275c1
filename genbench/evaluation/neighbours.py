"""Distances between all points of two sets, a tile at a time, and the nearest neighbours that follow from them."""

from collections.abc import Iterator

import numpy as np

TILE = 2048  # points a side


class Centred:
    """Points (n, d) as float64 blocks about a centre that all sets share; the array itself is not copied.

    Distances do not see the centre, but ‖x‖² + ‖y‖² − 2 x·y loses fewer digits about it.
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
    """The sets about the mean of the first."""
    centre = sets[0].mean(0, dtype=np.float64)
    return [Centred(points, centre) for points in sets]


def rounding(*sets: Centred) -> float:
    """Squared distances that are equal in exact arithmetic differ by less than this."""
    largest = max(points.norms.max() for points in sets)
    return float(8 * (sets[0][:1].shape[1] + 8) * np.finfo(np.float64).eps * largest)


def tiles(x: Centred, y: Centred, *, upper: bool = False) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """(rows of x, rows of y, their squared distances); `upper` leaves out tiles below the diagonal."""
    for rows in x.blocks():
        left = x[rows]
        for columns in y.blocks():
            if upper and columns.start < rows.start:
                continue
            squared = left @ y[columns].T
            squared *= -2
            squared += x.norms[rows, None]
            squared += y.norms[columns]
            yield rows, columns, squared


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
    """Index (n,) of the nearest point of y for each of x, and the distance (n,), exact where it is zero.

    Args:
      own: rows of y (n,) that are not counted, one for each of x: the point itself where x is part of y.
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
