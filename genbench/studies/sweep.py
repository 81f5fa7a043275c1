"""Choices of config values as data: grids, pairs, sequences of these, and choices that depend on other choices.

    product(
        grid({'family.schedule': ('cosine', 'straight'), 'optimizer.learning_rate': (1e-3, 2e-3)}),
        when('family.schedule', 'straight', grid({'family.time_sampler': ('uniform', 'logit_normal')})),
    )

has six choices. Each is a mapping from dotted config keys to values.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from genbench.errors import UserError

Choice = Mapping[str, Any]  # dotted config key → value


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Choices in order. They may depend on what was chosen before them (`when`)."""

    expand: Callable[[Choice], Iterator[Choice]]

    def __iter__(self) -> Iterator[Choice]:
        return self.expand({})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def fixed(values: Choice) -> Sweep:
    """A single choice with these values."""
    return chain(values)


def grid(axes: Mapping[str, Sequence[Any]]) -> Sweep:
    """Every combination of the values of all keys. The last key varies fastest."""
    named = _axes('grid', axes)
    return chain(*(dict(zip(named, values, strict=True)) for values in itertools.product(*named.values())))


def zipped(axes: Mapping[str, Sequence[Any]]) -> Sweep:
    """The first value of every key together, then the second of every key, and so on.

    Raises:
      UserError: the keys have different numbers of values.
    """
    named = _axes('zipped', axes)
    if len({len(values) for values in named.values()}) > 1:
        counts = ', '.join(f'{key} has {len(values)}' for key, values in named.items())
        raise UserError(f'zipped() needs the same number of values for each key: {counts}.')
    return chain(*(dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)))


def chain(*sweeps: Sweep | Choice) -> Sweep:
    """The choices of each sweep, one sweep after the other. A mapping is one choice."""

    def expand(chosen: Choice) -> Iterator[Choice]:
        for sweep in sweeps:
            yield from sweep.expand(chosen) if isinstance(sweep, Sweep) else (sweep,)

    return Sweep(expand)


def product(*sweeps: Sweep) -> Sweep:
    """Every combination of a choice from each sweep. Later sweeps may depend on earlier ones.

    Raises:
      UserError: two of them set the same key.
    """

    def expand(chosen: Choice, rest: Sequence[Sweep] = sweeps) -> Iterator[Choice]:
        if not rest:
            yield {}
            return
        for first in rest[0].expand(chosen):
            for others in expand({**chosen, **first}, rest[1:]):
                both = sorted(set(first) & set(others))
                if both:
                    raise UserError(f'Two parts of a product() set {both[0]}; only one part may set a key.')
                yield {**first, **others}

    return Sweep(expand)


def when(key: str, value: Any, sweep: Sweep, otherwise: Sweep | None = None) -> Sweep:
    """The choices of `sweep` if an earlier part of the product chose `value` for `key`.

    Otherwise the choices of `otherwise`; by default there is nothing more to choose.

    Raises:
      UserError: no earlier part chooses the key.
    """

    def expand(chosen: Choice) -> Iterator[Choice]:
        if key not in chosen:
            raise UserError(f'when({key!r}, …) needs an earlier part of the product() that sets {key}.')
        if chosen[key] == value:
            return sweep.expand(chosen)
        return otherwise.expand(chosen) if otherwise is not None else iter(({},))

    return Sweep(expand)


def words(choice: Choice) -> tuple[str, ...]:
    """{trial: {key: value}} for the keys in which variants differ: keys that all of them have, and overrides."""
    return tuple(f'{key}={value if isinstance(value, str) else repr(value)}' for key, value in choice.items())


def label(choice: Choice) -> str:
    """A readable name. Texts appear as they are, other values after the last part of their key."""
    return '-'.join(_word(key, value) for key, value in choice.items())


def _word(key: str, value: Any) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = f'{key.rpartition(".")[2]}={"_".join(map(str, value))}'
    else:
        text = f'{key.rpartition(".")[2]}={value}'
    return ''.join(letter if letter.isalnum() or letter in '_.=' else '_' for letter in text)


def _axes(what: str, axes: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    for key, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UserError(f'{what}() needs a list of values for {key}; got {values!r}.')
    return {key: tuple(values) for key, values in axes.items()}
