"""Keys of result rows as SQL, and the language of --where: 'family=a,b nfe<=50 settings.optimizer.b1!=0.9'."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean
from genbench.studies.index import COLUMNS, Index

PLACES = ('file', 'folder')

_CONDITION = re.compile(r"""\s*([\w./-]+)\s*(<=|>=|!=|==?|<|>)\s*("[^"]*"|'[^']*'|[^\s"']\S*)""")
_NUMBERS = ('BIGINT', 'DOUBLE')


@dataclasses.dataclass(frozen=True)
class Key:
    """A queryable property of a row: an expression over `entries`, and its parameters."""

    name: str
    sql: str
    parameters: tuple[str, ...] = ()
    number: bool = False


@dataclasses.dataclass(frozen=True)
class Condition:
    """SQL that is true for the wanted rows."""

    sql: str
    parameters: tuple[Any, ...] = ()


class Keys:
    """Looks up keys among those that the rows of an index have."""

    def __init__(self, index: Index):
        self._index = index
        self._nested: dict[str, set[str]] = {}

    def get(self, name: str) -> Key:
        """Find a key of the rows, `protocol.KEY`, `settings.KEY`, or a bare key of the protocol such as steps.

        Raises:
          UserError: no row has this key. The message suggests the nearest key that some row has.
        """
        if name in COLUMNS or name in PLACES:
            return Key(name, name, number=COLUMNS.get(name) in _NUMBERS)
        section, _, inside = name.partition('.')
        for column, key in ((section, inside), ('protocol', name)):
            if column in ('protocol', 'settings') and key in self._of(column):
                # Settings are flat: dots are part of their keys.
                path = [key] if column == 'settings' else key.split('.')
                return Key(name, f'json_extract_string({column}, ?)', ('$' + ''.join(f'."{part}"' for part in path),))
        known = [*COLUMNS, *PLACES, *self._of('protocol'), *(f'settings.{key}' for key in self._of('settings'))]
        same_end = [key for key in known if key.split('.')[-1] == name.split('.')[-1]]
        hint = f'Did you mean {" or ".join(sorted(same_end)[:3])}?' if same_end else did_you_mean(name, known)
        raise UserError(f'No row has the key {name!r}. {hint}')

    def _of(self, column: str) -> set[str]:
        if column not in self._nested:
            self._nested[column] = self._index.nested_keys(column)
        return self._nested[column]


def parse(texts: Sequence[str], keys: Keys) -> Condition:
    """Parse some --where texts, and join all their conditions by AND.

    Raises:
      UserError: a text is not a list of KEY=VALUE, a key is unknown, or a value is not a number where one is needed.
    """
    parts = [_condition(key, operator, value, keys) for text in texts for key, operator, value in split(text)]
    if not parts:
        return Condition('true')
    return Condition(' AND '.join(f'({part.sql})' for part in parts), sum((part.parameters for part in parts), ()))


def split(text: str) -> list[tuple[str, str, str]]:
    """Split a --where text into [(key, operator, value as written)]."""
    found, at = [], 0
    while text[at:].strip():
        match = _CONDITION.match(text, at)
        if match is None:
            raise UserError(f'--where does not understand {text[at:].strip()!r}; write KEY=VALUE, KEY!=VALUE, '
                            'KEY<=VALUE, KEY=A,B or KEY=PART*, with spaces between.')  # fmt: skip
        found.append((match[1], match[2], match[3]))
        at = match.end()
    return found


def _condition(name: str, operator: str, text: str, keys: Keys) -> Condition:
    key = keys.get(name)
    if operator in ('=', '==', '!='):
        quoted = text[0] in '"\''
        choices = [text[1:-1]] if quoted else [part for part in text.split(',') if part]
        parts = [_equal(key, choice, quoted) for choice in choices]
        sql = ' OR '.join(part.sql for part in parts) or 'false'
        parameters = sum((part.parameters for part in parts), ())
        # A row without the key differs from every value.
        return Condition(f'NOT coalesce({sql}, false)' if operator == '!=' else sql, parameters)
    number = as_number(text)
    if number is None:
        raise UserError(f'--where {name}{operator}{text}: {text!r} is not a number.')
    return Condition(f'try_cast({key.sql} AS DOUBLE) {operator} ?', (*key.parameters, number))


def _equal(key: Key, text: str, quoted: bool) -> Condition:
    if text == 'null' and not quoted:
        return Condition(f'{key.sql} IS NULL', key.parameters)
    if not quoted and re.search(r'[*?\[]', text):
        return Condition(f'{key.sql}::VARCHAR GLOB ?', (*key.parameters, text))
    number = as_number(text)
    if key.number and number is None:
        raise UserError(f'--where {key.name}={text}: {key.name} is a number.')
    as_text = Condition(f'{key.sql}::VARCHAR = ?', (*key.parameters, text))
    if number is None:
        return as_text
    numeric = f'try_cast({key.sql} AS DOUBLE) = ?'
    return Condition(f'{numeric} OR {as_text.sql}', (*key.parameters, number, *as_text.parameters))


def as_number(text: str) -> float | None:
    """Parse a word as a number; None if it is not one."""
    try:
        return float(text.strip('"\''))
    except ValueError:
        return None
