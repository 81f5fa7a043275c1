"""Choices that configs make by name from a plain dict: 'NAME' or 'NAME:key=value,…', e.g. 'min_snr:gamma=5'."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from genbench.errors import UserError, did_you_mean
from genbench.ranges import Range


@dataclasses.dataclass(frozen=True)
class Choice:
    """A function with its settings and requirements.

    Attributes:
      function: takes `numbers` as keyword arguments after the arguments that its registry documents.
      numbers: the default and the range of each number. If the default is a text, the value is a text.
      needs: names of features that a family must offer for this choice to make sense.
      offers: names of features that this choice adds to those.
    """

    function: Callable[..., Any]
    numbers: Mapping[str, tuple[float | str, Range]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()


def choose(key: str, text: str, known: Mapping[str, Choice]) -> Choice:
    """The choice in `known` that `text`, the value of the config's `key`, names, with its numbers filled in.

    Raises:
      UserError: there is no such name, or a number is unknown or out of its range.
    """
    name, _, rest = text.partition(':')
    if name not in known:
        kind = key.rpartition('.')[2].replace('_', ' ')
        raise UserError(f'There is no {kind} {name!r} ({key}). {did_you_mean(name, known)}')
    choice = known[name]
    numbers = {one: default for one, (default, _) in choice.numbers.items()}
    for part in filter(None, rest.split(',')):
        one, _, value = part.partition('=')
        if one not in choice.numbers:
            takes = f'takes {", ".join(choice.numbers)}' if choice.numbers else 'takes no numbers'
            raise UserError(f'{key} is {text!r}, but {name} {takes}; write {key}=NAME:key=number.')
        numbers[one] = _number(key, text, value, type(choice.numbers[one][0]))
        choice.numbers[one][1].check(f'{one} of {key}', numbers[one])
    return dataclasses.replace(choice, function=functools.partial(choice.function, **numbers), numbers={})


def _number(key: str, text: str, value: str, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        wanted = 'an integer' if kind is int else 'a number'
        raise UserError(f'{key} is {text!r}, where {value!r} should be {wanted}.') from None
