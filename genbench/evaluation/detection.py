"""How well a score tells marked images from unmarked ones: rates, AUC and their 95% intervals."""

from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from genbench.evaluation import statistics

LEVEL = statistics.LEVEL
RATE = 0.01  # of false alarms
FEWEST = 100  # unmarked images for `power`: with fewer, the threshold lies above all of them


class Estimated(NamedTuple):
    """A number, and the limits of its 95% interval."""

    value: float
    low: float
    high: float


def share(hits: np.ndarray) -> Estimated:
    """The share of true values (n,)."""
    right = int(hits.sum())
    return Estimated(right / len(hits), *statistics.binomial(right, len(hits)))


def mean(values: np.ndarray) -> Estimated:
    """The mean of numbers (n,) in [0, 1], with an interval over images.

    It is Student's, but not narrower than if all values were equal. From n equal values follows, with an error of
    2.5%, that at most the share `rest` of all images has others, which may be 0 or 1.
    """
    n, value = len(values), float(values.mean())
    if n == 1:
        return Estimated(value, 0.0, 1.0)
    reach = float(special.stdtrit(n - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / n**0.5)
    rest = 1 - ((1 - LEVEL) / 2) ** (1 / n)
    low, high = max(reach, value * rest), max(reach, (1 - value) * rest)
    return Estimated(value, max(value - low, 0.0), min(value + high, 1.0))


def auc(marked: np.ndarray, unmarked: np.ndarray) -> Estimated:
    """The probability that a marked image scores higher than an unmarked one; equal scores count half.

    The interval inverts the variance of J. Hanley, B. McNeil 1982 at each value, with the mean of the two numbers of
    images in its exponential terms (R. Newcombe 2006, method 5). It has a width also where the scores do not overlap.
    """
    m, n = len(marked), len(unmarked)
    below = np.searchsorted(np.sort(unmarked), marked, 'left') + np.searchsorted(np.sort(unmarked), marked, 'right')
    value = float(below.sum() / (2 * m * n))
    z, mean = float(special.ndtri((1 + LEVEL) / 2)), (m + n) / 2 - 1

    def outside(true: float) -> float:
        """Positive where the distance from `value` is more than z deviations."""
        variance = true * (1 - true) * (1 + mean * ((1 - true) / (2 - true) + true / (1 + true))) / (m * n)
        return (value - true) ** 2 - z**2 * variance

    low = optimize.brentq(outside, 0, value) if 0 < value < 1 else _nearest(outside, value, 1 - value)
    high = optimize.brentq(outside, value, 1) if 0 < value < 1 else _nearest(outside, value, 1 - value)
    return Estimated(value, min(low, value), max(high, value))


def _nearest(outside, value: float, other: float) -> float:
    """The end of the interval of an AUC of 0 or 1, which is a root of `outside`, and not the only one."""
    return float(optimize.brentq(outside, value + (other - value) * 1e-9, other - (other - value) * 1e-9))


def power(marked: np.ndarray, unmarked: np.ndarray, rate: float = RATE) -> Estimated:
    """The share of marked images that score above all but the share `rate` of unmarked ones.

    The interval includes the error of the threshold. The number of unmarked images above the true threshold is
    binomial, which gives two thresholds around it; beyond them come the binomial intervals of the shares of marked
    images. Each of the four has an error of at most 1.25%. With fewer than 437 unmarked images the lower limit at a
    rate of 1% is 0.
    """
    n, error = len(unmarked), (1 - LEVEL) / 4
    falling = np.concatenate([[np.inf], np.sort(unmarked)[::-1], [-np.inf]])  # place k: the k-th largest
    counts = np.arange(n + 1)
    above = special.bdtr(counts, n, rate)  # P(count ≤ k)
    most = int(counts[above >= 1 - error][0])
    least = int((above <= error).sum())
    true = (marked > falling[int(rate * n) + 1]).mean()
    low, high = int((marked > falling[least]).sum()), int((marked > falling[most + 1]).sum())
    limits = [statistics.binomial(right, len(marked), 1 - 2 * error) for right in (low, high)]
    return Estimated(float(true), limits[0][0], limits[1][1])
