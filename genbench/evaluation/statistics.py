"""Statistics over training seeds: mean and standard deviation of a variant, paired differences to a baseline."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

LEVEL = 0.95  # of the intervals


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean of n values and their standard deviation (n − 1 in the denominator); None for a single value."""

    mean: float
    sd: float | None
    n: int

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Student's t interval of the mean; None for a single value."""
        if self.sd is None:
            return None
        from scipy import special

        reach = float(special.stdtrit(self.n - 1, (1 + level) / 2)) * self.sd / self.n**0.5
        return self.mean - reach, self.mean + reach


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def paired(values: Mapping[int | None, float], baseline: Mapping[int | None, float]) -> Spread | None:
    """The differences value − baseline over the seeds that both have; None where they share none.

    Pairs with the same seed share initialisation and order of data, so their common variation cancels
    (the paired t test; its interval is `Spread.interval`).
    """
    differences = [value - baseline[seed] for seed, value in values.items() if seed in baseline]
    return spread(differences) if differences else None
