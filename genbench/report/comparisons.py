"""Differences between variants, corrected for many comparisons, and the ranks that they allow.

A difference is paired over the training seeds that both variants have (see `statistics.paired`). Without common seeds
it is computed as if the variants shared nothing. With a single seed each, it has an interval over sets of samples and
decides nothing between two variants, because it is not known how much another training would change it. Such an
interval can tell two samplers of one checkpoint apart.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from genbench.evaluation import statistics
from genbench.evaluation.statistics import LEVEL, Estimate
from genbench.report.cells import Cell

ALPHA = 1 - LEVEL


@dataclasses.dataclass(frozen=True)
class Pair:
    """A variant's number minus another's.

    Attributes:
      interval: 95% interval of this difference alone.
      adjusted: p-value of no difference, corrected by Holm (1979) for all pairs of the metric; None if it is unknown.
    """

    one: Cell
    other: Cell
    difference: Estimate
    adjusted: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        return self.difference.interval()

    @property
    def decided(self) -> bool:
        """Whether the two differ, at a level of 5% over all pairs of the metric."""
        return self.adjusted is not None and self.adjusted <= ALPHA


@dataclasses.dataclass(frozen=True)
class Rank:
    """A variant's place by the mean, and the places that the decided differences leave open."""

    cell: Cell
    place: int
    low: int
    high: int


def difference(one: Cell, other: Cell) -> Estimate:
    """Return one − other. Its error is over training if both have two seeds, else over sets of samples."""
    ours, theirs = one.by_seed, other.by_seed
    common = [seed for seed in ours if seed in theirs]
    if len(common) > 1 or len(ours) == len(theirs) == len(common):
        found = statistics.paired(ours, theirs, alone=True)
        if found is not None:
            return found
    return statistics.difference(one.estimate, other.estimate)


def tells(one: Cell, other: Cell, found: Estimate) -> bool:
    """Whether the error of a difference includes everything that distinguishes the two."""
    same_runs = one.variant == other.variant
    return found.std_err is not None and (same_runs or statistics.TRAINING in found.varied)


def p_inside(found: Estimate, low: float, high: float) -> tuple[float, float]:
    """Return (p for, p against): how compatible the numbers are with a difference outside (low, high), and inside.

    Two-sided: `p for` is at most 5% if the 95% interval lies inside, and `p against` if it lies beyond one end. For an
    interval with two ends this is a pair of one-sided tests (Schuirmann 1987).
    """
    below, above = (_cdf(found, high), 1 - _cdf(found, low))  # against a difference above high, and below low
    ends = [value for value, end in ((below, high), (above, low)) if math.isfinite(end)]
    return min(1.0, 2 * max(ends)), min(1.0, 2 * min(1 - value for value in ends))


def _cdf(found: Estimate, end: float) -> float:
    """Student's distribution function at (difference − end) / error."""
    if not found.std_err:
        return 0.5 + 0.5 * ((found.mean > end) - (found.mean < end))
    if not math.isfinite(end):
        return 0.0 if end > 0 else 1.0
    from scipy import special

    return float(special.stdtr(min(found.freedom, 1e9), (found.mean - end) / found.std_err))


def p_equal(found: Estimate) -> float:
    """The two-sided p-value of no difference."""
    tail = _cdf(found, 0.0)
    return min(1.0, 2 * min(tail, 1 - tail))


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values (Holm 1979): the probability that any true hypothesis gets at most α is at most α."""
    adjusted, highest = [1.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = highest
    return adjusted


def pairs(found: Sequence[Cell]) -> list[Pair]:
    """Compare every two of these cells of one metric: the earlier minus the later."""
    both = [Pair(one, other, difference(one, other)) for one, other in itertools.combinations(found, 2)]
    known = [pair for pair in both if tells(pair.one, pair.other, pair.difference)]
    adjusted = holm([p_equal(pair.difference) for pair in known])
    corrected = {id(pair): value for pair, value in zip(known, adjusted, strict=True)}
    return [dataclasses.replace(pair, adjusted=corrected.get(id(pair))) for pair in both]


def ranks(found: Sequence[Cell], compared: Sequence[Pair]) -> list[Rank]:
    """Rank the cells from the best on, with intervals that hold simultaneously at 95%.

    By the corrected differences, a variant's best place is just behind all variants that are better than it, and its
    worst place is just before all that are worse (Al Mohamad, Goeman and van Zwet, Biometrics 2022).
    """
    sign = 1 if found and found[0].metric.lower_is_better else -1
    ordered = sorted(found, key=lambda cell: sign * cell.value)
    ahead, behind = ({id(cell): 0 for cell in found} for _ in range(2))
    for pair in compared:
        if pair.decided:
            better, worse = (pair.one, pair.other) if sign * pair.difference.mean < 0 else (pair.other, pair.one)
            ahead[id(worse)] += 1
            behind[id(better)] += 1
    return [
        Rank(cell, place, 1 + ahead[id(cell)], len(found) - behind[id(cell)])
        for place, cell in enumerate(ordered, start=1)
    ]


def apart(one: Cell, other: Cell, compared: Sequence[Pair]) -> bool:
    """Whether two cells of these pairs are told apart."""
    return any(pair.decided and {id(pair.one), id(pair.other)} == {id(one), id(other)} for pair in compared)


def alike(found: Mapping[str, Cell]) -> dict[str, Cell]:
    """The cells that were measured in the most common way."""
    groups: dict[str, dict[str, Cell]] = {}
    for name, cell in found.items():
        groups.setdefault(cell.measurement.hash, {})[name] = cell
    return max(groups.values(), key=len, default={})
