"""Means over training seeds with errors that hold all that varied.

The number of training seed s is μ + T_s + N + I_s: T is the effect of training, N that of noise which all seeds share,
I that of noise of its own. The spread over seeds shows T and I. It leaves out N, which its mean does not average away,
so the variance of N is added. Seeds share noise where

- a likelihood is scored on the same test images;
- samples are scored against halves of the held-out split: set k of every seed meets the same half k;
- samples were drawn with the same keys (rows written before keys depended on the training seed).

Samples with keys of their own are part of I: the spread over seeds holds their noise already. All halves are of one
split. How much another split would change the numbers is not known.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

LEVEL = 0.95  # of the intervals
TRAINING, SAMPLING, IMAGES, NOTHING = 'training', 'sampling', 'test images', ''
HALVES, OTHERS = 'reference halves', 'other held-out images'


@dataclasses.dataclass(frozen=True)
class Replicate:
    """The number of one training seed, with the noise that it was measured with.

    Attributes:
      value: the number.
      source: what the noise comes from: SAMPLING, IMAGES, or NOTHING for a number without any, such as a cost.
      noise: replicates with equal ones share the noise of `source`.
      sets: values of disjoint sets of samples, whose mean is `value`; empty where there is one set.
      std_err: of the value, over sets or images; None where it is unknown.
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
        """All that its noise comes from."""
        return (*filter(None, [self.source]), *([HALVES] if self.halves else []))

    @property
    def unknown(self) -> tuple[str, ...]:
        """What would change the number, and no error can hold."""
        return (OTHERS,) if self.halves else ()


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over n training seeds and its error.

    Attributes:
      sd: of a single seed's number, with all of `varied`; for n = 1 over its sets of samples, or the standard error
        over its images. None where nothing is known to have varied.
      sd_seeds: over seeds alone, which leaves out what they share.
      std_err: of the mean, with all of `varied`; None where nothing is known to have varied.
      freedom: its degrees of freedom, by Welch (1947) and Satterthwaite (1946) where it is a sum.
      varied: what the error holds: TRAINING, SAMPLING, HALVES, IMAGES.
      missing: what varies and is not in it; OTHERS never is.
      shared: those of `varied` that the seeds share.
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
        """Student's t interval of the mean over what varied; None where nothing is known to have."""
        if self.std_err is None:
            return None
        from scipy import special

        reach = float(special.stdtrit(min(self.freedom, 1e9), (1 + level) / 2)) * self.std_err
        return self.mean - reach, self.mean + reach


def replicate(row: Mapping[str, Any]) -> Replicate:
    """A result row as a replicate; `train_seed` is read beside the keys of a row."""
    if row.get('kind') == 'cost':
        return Replicate(row['value'])
    error, sets = row.get('std_err'), tuple(row.get('values') or ())
    if row.get('kind') in ('exact', 'lower_bound', 'estimate'):
        return Replicate(row['value'], IMAGES, IMAGES, (), error, (row.get('n') or math.inf) - 1)
    sets = sets if len(sets) > 1 and None not in sets else ()
    freedom = len(sets) - 1 if sets else _freedom(row.get('sd'), error)
    return Replicate(row['value'], SAMPLING, _sampling_noise(row), sets, error, freedom, _against_halves(row))


def _sampling_noise(row: Mapping[str, Any]) -> Any:
    """The seeds that keyed the samples; rows that do not say so were keyed by the seed of evaluation alone."""
    protocol = row['protocol']
    return protocol.get('seed'), row.get('train_seed') if 'train.seed' in (protocol.get('noise') or '') else None


def _against_halves(row: Mapping[str, Any]) -> bool:
    """Whether its reference, or the real images beside it, are a half of the held-out split for each set."""
    parts = (row['protocol'].get(name) for name in ('reference', 'held_out'))
    return any(isinstance(part, Mapping) and part.get('half_seed') is not None for part in parts)


def _freedom(sd: float | None, std_err: float | None) -> float:
    """From the standard deviation over sets and its error, of rows that do not list their sets."""
    return max(round((sd / std_err) ** 2) - 1, 1) if sd and std_err else math.inf


def over_seeds(replicates: Sequence[Replicate]) -> Estimate:
    """The mean of at least one replicate."""
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
    """(standard error, degrees of freedom) over sets or images, of the noise that replicates share; None: unknown.

    Set k of every seed meets the same noise, so that seeds and sets are the two ways of a layout. The means over seeds
    vary as that noise does, and with a part of each seed's own noise, which the spread over seeds has counted already:
    the interaction's mean square, over the number of all sets, is taken off, and the degrees of freedom shrink by the
    share that is left. So intervals of 95% hold the truth 93 to 97 times in a hundred. Two sets give a single degree of
    freedom, and nothing is taken off: 91 to 99.
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
    """The mean square of what neither the seed nor the set explains; `means` are those of the sets over seeds."""
    grand = fmean(means)
    squares = (
        (value - one.value - mean + grand) ** 2
        for one in replicates for value, mean in zip(one.sets, means, strict=True)
    )  # fmt: skip
    return math.fsum(squares) / ((len(replicates) - 1) * (len(means) - 1))


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation, n − 1 in the denominator; `statistics.stdev` computes in fractions, which takes long."""
    mean = fmean(values)
    return (math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def _sum(*errors: tuple[float, float]) -> tuple[float, float]:
    """Independent (standard error, degrees of freedom) added, the latter by Welch and Satterthwaite.

    Their formula weighs each part by its estimated variance. One of few degrees of freedom is often small by chance,
    then counts too little, and 95% intervals hold the truth as rarely as 92 times in a hundred. Weights of (1 + 3 / ν)
    times the variance keep to 94 to 97 from two degrees of freedom on, and 92 with one. For a single part nothing
    changes.
    """
    total = math.fsum(error**2 for error, _ in errors)
    if total == 0:
        return 0.0, math.inf
    weights = [(error**2 * (1 + 3 / freedom), freedom) for error, freedom in errors]
    spread = math.fsum(weight**2 / freedom for weight, freedom in weights)
    return total**0.5, math.fsum(weight for weight, _ in weights) ** 2 / spread if spread else math.inf


def difference(one: Estimate, other: Estimate) -> Estimate:
    """one − other, as if they shared nothing (Welch's t test).

    What they do share, such as test images, makes the interval wider than it need be; `paired` is for that.
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
    """The differences value − baseline over the training seeds that both have; None where they have none in common.

    Two runs of a seed share the order of the data. They share the noise that samples start from where their keys are
    equal, and the initial parameters only where their networks have the same shapes. What they share cancels, as in
    the paired t test. A likelihood's test images are shared by all: the interval is over training, on these very
    images. Both runs meet the same reference halves; what is left of their effect is in the error. One pair has no
    error, or with `alone` the one over its sets of samples, which leaves out training.
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
