"""Means over training seeds, with errors that include everything that varied.

The number of training seed s is μ + T_s + N + I_s. T is the effect of training, N the effect of noise that all seeds
share, and I the effect of noise that each seed draws for itself. The spread over seeds shows T and I. It does not show
N, which the mean over seeds does not average away, so the variance of N is added. Seeds share noise if

- a likelihood is scored on the same test images;
- samples are scored against halves of the held-out split, where set k of every seed is compared with the same half k;
- samples were drawn with the same keys (rows written before keys depended on the training seed).

If each seed has its own sampling keys, sampling noise is part of I, and the spread over seeds already includes it. All
halves come from one split. How much another split would change the numbers is not known.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

LEVEL = 0.95  # level of the intervals
TRAINING, SAMPLING, IMAGES, NOTHING = 'training', 'sampling', 'test images', ''
HALVES, OTHERS = 'reference halves', 'other held-out images'


@dataclasses.dataclass(frozen=True)
class Replicate:
    """The number of one training seed, with the noise that it was measured with.

    Attributes:
      value: the number.
      source: what the noise comes from: SAMPLING, IMAGES, or NOTHING for a number without any, such as a cost.
      noise: replicates for which this is equal share the noise of `source`.
      sets: values of disjoint sets of samples, whose mean is `value`; empty if there is one set.
      std_err: of the value, over sets or images; None if it is unknown.
      freedom: degrees of freedom of `std_err`.
      halves: whether set k was scored against half k of the held-out split, which all seeds share.
    """

    value: float
    source: str = NOTHING
    noise: Any = None
    sets: tuple[float, ...] = ()
    std_err: float | None = None
    freedom: float = math.inf
    halves: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """All sources of its noise."""
        return (*filter(None, [self.source]), *([HALVES] if self.halves else []))

    @property
    def unknown(self) -> tuple[str, ...]:
        """What would change the number but cannot be part of any error."""
        return (OTHERS,) if self.halves else ()


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over n training seeds and its error.

    Attributes:
      sd: of a single seed's number, including all of `varied`. For n = 1 it is over the seed's sets of samples, or the
        standard error over its images. None if nothing is known to have varied.
      sd_seeds: over seeds alone, without what they share.
      std_err: of the mean, including all of `varied`; None if nothing is known to have varied.
      freedom: degrees of freedom of `std_err`, by Welch (1947) and Satterthwaite (1946) if it is a sum.
      varied: what the error includes: TRAINING, SAMPLING, HALVES, IMAGES.
      missing: what varies but is not included; OTHERS never is included.
      shared: the part of `varied` that the seeds share.
    """

    mean: float
    n: int
    sd: float | None
    sd_seeds: float | None
    std_err: float | None
    freedom: float
    varied: tuple[str, ...]
    missing: tuple[str, ...]
    shared: tuple[str, ...] = ()

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Student's t interval of the mean over what varied; None if nothing is known to have varied."""
        if self.std_err is None:
            return None
        from scipy import special

        reach = float(special.stdtrit(min(self.freedom, 1e9), (1 + level) / 2)) * self.std_err
        return self.mean - reach, self.mean + reach


def binomial(right: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a probability after `right` of n trials (Clopper & Pearson 1934)."""
    from scipy import special

    error = (1 - level) / 2
    low = special.betaincinv(right, n - right + 1, error) if right else 0.0
    high = special.betaincinv(right + 1, n - right, 1 - error) if right < n else 1.0
    return float(low), float(high)


def replicate(row: Mapping[str, Any]) -> Replicate:
    """Convert a result row to a replicate. `train_seed` is read in addition to the keys of a row."""
    if row.get('kind') == 'cost':
        return Replicate(row['value'])
    error, sets = row.get('std_err'), tuple(row.get('values') or ())
    if row.get('kind') in ('exact', 'lower_bound', 'estimate'):
        return Replicate(row['value'], IMAGES, IMAGES, (), error, (row.get('n') or math.inf) - 1)
    sets = sets if len(sets) > 1 and None not in sets else ()
    freedom = len(sets) - 1 if sets else _freedom(row.get('sd'), error)
    return Replicate(row['value'], SAMPLING, _sampling_noise(row), sets, error, freedom, _against_halves(row))


def _sampling_noise(row: Mapping[str, Any]) -> Any:
    """The seeds that keyed the samples. Rows that do not name them were keyed by the evaluation seed alone."""
    protocol = row['protocol']
    return protocol.get('seed'), row.get('train_seed') if 'train.seed' in (protocol.get('noise') or '') else None


def _against_halves(row: Mapping[str, Any]) -> bool:
    """Whether its reference, or its further real images, are a half of the held-out split for each set."""
    parts = (row['protocol'].get(name) for name in ('reference', 'held_out'))
    return any(isinstance(part, Mapping) and part.get('half_seed') is not None for part in parts)


def _freedom(sd: float | None, std_err: float | None) -> float:
    """Degrees of freedom from the sd over sets and the standard error, for rows that do not list their sets."""
    return max(round((sd / std_err) ** 2) - 1, 1) if sd and std_err else math.inf


def over_seeds(replicates: Sequence[Replicate]) -> Estimate:
    """Estimate the mean of one or more replicates."""
    values, first = [one.value for one in replicates], replicates[0]
    mean, n = fmean(values), len(values)
    own = _set_error(replicates)
    if n == 1:
        sd = _deviation(first.sets) if first.sets else first.std_err
        training = (TRAINING,) if first.source else ()
        missing = (*training, *(() if own else first.sources), *first.unknown)
        return Estimate(mean, 1, sd, None, first.std_err, first.freedom, first.sources if own else (), missing)
    between, shared = _deviation(values), _shared(replicates)
    varied = (TRAINING, *(name for name in first.sources if own or name not in shared))
    missing = (*(() if own else shared), *first.unknown)
    if not shared or not own:
        return Estimate(mean, n, between, between, between / n**0.5, n - 1, varied, missing)
    error, freedom = _sum((between / n**0.5, n - 1), own)
    return Estimate(mean, n, math.hypot(between, own[0]), between, error, freedom, varied, missing, shared)


def _shared(replicates: Sequence[Replicate]) -> tuple[str, ...]:
    """The sources of noise that several replicates have in common."""
    alike = len({one.noise for one in replicates}) < len(replicates)
    halves = any(one.halves for one in replicates)
    return tuple(name for name in replicates[0].sources if (halves if name == HALVES else alike))


def _set_error(replicates: Sequence[Replicate]) -> tuple[float, float] | None:
    """(standard error, degrees of freedom) over sets or images of the noise that replicates share; None if unknown.

    Set k of every seed has the same noise, so seeds and sets form a two-way layout. The means over seeds vary with that
    noise, and also with a part of each seed's own noise, which the spread over seeds has already counted. That part,
    the interaction's mean square divided by the number of all sets, is subtracted, and the degrees of freedom shrink by
    the share that remains. 95% intervals then contain the truth 93 to 97 times in a hundred. With two sets there is a
    single degree of freedom and nothing is subtracted, which gives 91 to 99.
    """
    counts = {len(one.sets) for one in replicates}
    if len(counts) == 1 and counts != {0}:
        means = [fmean(values) for values in zip(*(one.sets for one in replicates), strict=True)]
        count = len(means)
        whole = _deviation(means) ** 2 / count
        if len(replicates) == 1 or count == 2 or not whole:
            return whole**0.5, count - 1
        shared = max(whole - _interaction(replicates, means) / (len(replicates) * count), 0.0)
        return shared**0.5, max((count - 1) * shared / whole, 1.0)
    errors = [one.std_err for one in replicates if one.std_err is not None]
    if len(errors) < len(replicates):
        return None
    return fmean(error**2 for error in errors) ** 0.5, min(one.freedom for one in replicates)


def _interaction(replicates: Sequence[Replicate], means: Sequence[float]) -> float:
    """The mean square of what neither the seed nor the set explains; `means` are the means of the sets over seeds."""
    grand = fmean(means)
    squares = (
        (value - one.value - mean + grand) ** 2
        for one in replicates for value, mean in zip(one.sets, means, strict=True)
    )  # fmt: skip
    return math.fsum(squares) / ((len(replicates) - 1) * (len(means) - 1))


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation with n − 1 in the denominator. `statistics.stdev` computes in fractions, which is slow."""
    mean = fmean(values)
    return (math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def _sum(*errors: tuple[float, float]) -> tuple[float, float]:
    """Add independent (standard error, degrees of freedom) pairs, the latter by Welch and Satterthwaite.

    Their formula weights each part by its estimated variance. A variance with few degrees of freedom is often small by
    chance. It then counts too little, and 95% intervals contain the truth as rarely as 92 times in a hundred. Weights
    of (1 + 3 / ν) times the variance give 94 to 97 with at least two degrees of freedom, and 92 with one. For a single
    part nothing changes.
    """
    total = math.fsum(error**2 for error, _ in errors)
    if total == 0:
        return 0.0, math.inf
    weights = [(error**2 * (1 + 3 / freedom), freedom) for error, freedom in errors]
    spread = math.fsum(weight**2 / freedom for weight, freedom in weights)
    return total**0.5, math.fsum(weight for weight, _ in weights) ** 2 / spread if spread else math.inf


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Return one − other, as if they shared nothing (Welch's t test).

    If they do share something, such as test images, the interval is wider than necessary; use `paired` for that.
    """
    mean, n = one.mean - other.mean, min(one.n, other.n)
    missing = tuple(dict.fromkeys((*one.missing, *other.missing)))
    if one.std_err is None or other.std_err is None:
        return Estimate(mean, n, None, None, None, math.inf, (), missing)
    error, freedom = _sum((one.std_err, one.freedom), (other.std_err, other.freedom))
    return Estimate(mean, n, None, None, error, freedom, one.varied, missing)


def paired(
    values: Mapping[Any, Replicate], baseline: Mapping[Any, Replicate], *, alone: bool = False
) -> Estimate | None:
    """Return the differences value − baseline over the training seeds that both have; None if they have none in common.

    Two runs of a seed share the order of the data. They share the noise that samples start from if their keys are
    equal, and the initial parameters only if their networks have the same shapes. What they share cancels, as in the
    paired t test. All runs share a likelihood's test images, so the interval is over training, on these very images.
    Both runs are compared with the same reference halves, and what remains of their effect is in the error. One pair
    has no error. With `alone` it has the error over its sets of samples, which does not include training.
    """
    pairs = [_minus(value, baseline[seed]) for seed, value in values.items() if seed in baseline]
    if not pairs:
        return None
    found = over_seeds(pairs)
    return found if found.n > 1 or alone else dataclasses.replace(found, sd=None, std_err=None, varied=())


def _minus(one: Replicate, other: Replicate) -> Replicate:
    value = one.value - other.value
    if SAMPLING not in (one.source, other.source):
        return Replicate(value)
    noise, halves = (one.noise, other.noise), one.halves or other.halves
    if one.sets and len(one.sets) == len(other.sets):
        sets = tuple(a - b for a, b in zip(one.sets, other.sets, strict=True))
        error = _deviation(sets) / len(sets) ** 0.5
        return Replicate(value, SAMPLING, noise, sets, error, len(sets) - 1, halves)
    if one.std_err is None or other.std_err is None:
        return Replicate(value, SAMPLING, noise, halves=halves)
    error, freedom = _sum((one.std_err, one.freedom), (other.std_err, other.freedom))
    return Replicate(value, SAMPLING, noise, (), error, freedom, halves)
