"""Claims as comparisons of numbers: data in a study's file, verdicts on its page.

    tests=[less('fd', name, 'noise', {'nfe': 10}) for name in ('v', 'velocity', 'x')]

says that each of three variants has a lower Fréchet distance than the variant called noise, all with a sampler of ten
network evaluations.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean

LESS, MORE, NEAR = 'less', 'more', 'near'
RELATIONS = (LESS, MORE, NEAR)
SHAPE = {
    'metric': str, 'one': str, 'relation': RELATIONS, 'other': (str, float), 'where?': dict, 'against?': dict,
    'margin?': float,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Comparison:
    """States that `one` is less than, more than or near `other` in a metric.

    Attributes:
      one: a variant.
      other: a variant, or a number such as a published one.
      where: which rows of the metric: {'nfe': 10, 'sampler': 'heun'}, {'method': 'ode_1'} for a likelihood, or any key
        of the protocol; {} means the sampler on the leaderboard.
      against: the same for `other`, if it differs from `where`.
      margin: how much less or more `one` must be, or how near.
    """

    metric: str
    one: str
    relation: str
    other: str | float
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    against: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    margin: float = 0.0

    @property
    def variants(self) -> tuple[str, ...]:
        return (self.one, self.other) if isinstance(self.other, str) else (self.one,)

    def values(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        return dataclasses.asdict(self)


def _comparison(
    relation: str,
    metric: str,
    one: str,
    other: str | float,
    where: Mapping[str, Any] | None = None,
    against: Mapping[str, Any] | None = None,
    margin: float = 0.0,
) -> Comparison:
    chosen = dict(where or {})
    return Comparison(metric, one, relation, other, chosen, chosen if against is None else dict(against), margin)


# (metric, one, other, where=None, against=None, margin=0.0): `one` has the lower or higher number, by more than
# the margin; see `Comparison`.
less = functools.partial(_comparison, LESS)
more = functools.partial(_comparison, MORE)


def near(
    metric: str,
    one: str,
    other: str | float,
    margin: float,
    where: Mapping[str, Any] | None = None,
    against: Mapping[str, Any] | None = None,
) -> Comparison:
    """State that the two differ by less than the margin; see `Comparison`."""
    return _comparison(NEAR, metric, one, other, where, against, margin)


def read(values: Sequence[Mapping[str, Any]]) -> tuple[Comparison, ...]:
    """Read the tests of a study.json."""
    known = {field.name for field in dataclasses.fields(Comparison)}
    return tuple(Comparison(**{key: part for key, part in value.items() if key in known}) for value in values)


def check(tests: Any, variants: Sequence[str]) -> None:
    """Refuse tests that no number from these variants could answer.

    Raises:
      UserError: a test is not a comparison, a variant is unknown, or a margin does not fit.
    """
    if isinstance(tests, str) or not isinstance(tests, Sequence):
        raise UserError(f'its tests should be a tuple of less(…), more(…) and near(…), not {tests!r}.')
    for test in tests:
        if not isinstance(test, Comparison):
            raise UserError(f'its tests should be less(…), more(…) or near(…), not {test!r}.')
        for name in test.variants:
            if name not in variants:
                raise UserError(f'a test of its claim names the variant {name!r}. {did_you_mean(name, variants)}')
        if not isinstance(test.other, str) and not math.isfinite(test.other):
            raise UserError(f'a test of its claim compares {test.one!r} with {test.other}, which is not a number.')
        if not test.margin >= 0 or (test.relation == NEAR and not test.margin):
            raise UserError(f'the margin of a test of {test.metric} is {test.margin}; it should be '
                            f'{"above 0" if test.relation == NEAR else "at least 0"}.')  # fmt: skip
        if test.one == test.other and test.where == test.against:
            raise UserError(f'a test of its claim compares {test.one!r} with itself; add where=… and against=….')


def described(where: Mapping[str, Any]) -> str:
    """The rows that a comparison is about, for display: 'heun, nfe = 10'."""
    bare = [str(where[key]) for key in ('sampler', 'method') if key in where]
    named = [f'{key} = {value}' for key, value in where.items() if key not in ('sampler', 'method')]
    return ', '.join([*bare, *named])
