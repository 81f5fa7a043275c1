"""Turn the text of a 'key=value' override into a value, and a value into the type of its key."""

import ast
import difflib
import re
import warnings
from collections.abc import Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean
from genbench.ranges import Range, check_text, shown

_LONGEST = 20_000  # the most characters in one override
_DEEPEST = 3  # levels of nested brackets
_SWITCHES = {'true': True, '1': True, 'yes': True, 'false': False, '0': False, 'no': False}


def joined(words: Sequence[str]) -> list[str]:
    """The words, with every `--config.KEY VALUE` joined into `--config.KEY=VALUE`."""
    found: list[str] = []
    for word in words:
        if found and found[-1].startswith('--config.') and '=' not in found[-1] and not word.startswith('--'):
            found[-1] += f'={word}'
        else:
            found.append(word)
    return found


def split(override: str) -> tuple[str, str]:
    """Split one word into ('section.key', text).

    Raises:
      UserError: the word has no value, or cannot be an override.
    """
    key, equals, text = override.partition('=')
    check_text(override, 'An override')
    if len(override) > _LONGEST:
        raise UserError(f'The override of {shown(key)} has {len(override)} characters; at most {_LONGEST} are allowed.')
    if not equals:
        raise UserError(f'The override {override!r} has no value; write --config.{key}=VALUE.')
    return key, text


def parse(key: str, text: str, old: Any) -> Any:
    """Parse the text of an override for a key that holds `old`."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() not in _SWITCHES:
            raise UserError(f'{key} expects true or false; got {shown(text)}.')
        return _SWITCHES[text.lower()]
    if isinstance(old, tuple):
        value = _literal(text)
        if value is None:
            inside = text[1:-1] if text[:1] == '(' and text[-1:] == ')' else text
            value = tuple(part for part in inside.split(',') if part)
        return value if isinstance(value, tuple | list) else (value,)
    number = _number(text)
    if number is None:
        raise UserError(f'{key} expects {article(type(old))}; got {shown(text)}.')
    return number


def _number(text: str) -> int | float | None:
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _literal(text: str) -> Any:
    """The Python value that a text spells; None if it spells none, or nests deeper than any value of ours."""
    depth = 0
    for character in text:
        depth += (character in '([{') - (character in ')]}')
        if depth > _DEEPEST:
            return None
    try:
        with warnings.catch_warnings():  # strings that are not Python may cause warnings, such as patterns with \\d
            warnings.simplefilter('ignore')
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # TypeError: {[]: 1}
        return None


def coerce(key: str, value: Any, old: Any, allowed: Range) -> Any:
    """Convert `value` to the type of `old`. Whole floats pass as integers, and integers as floats."""
    kind = type(old)
    if kind is not tuple:
        return _as(key, value, kind)
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    wanted = type(old[0]) if old else allowed.items
    if wanted is None:
        return values
    try:
        return tuple(_as(key, item, wanted) for item in values)
    except UserError:
        example = f', for example {old}' if old else ''
        raise UserError(f'{key} expects a tuple of {wanted.__name__}{example}; got {shown(value)}.') from None


def _as(key: str, value: Any, kind: type) -> Any:
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f'{key} expects a float; got an integer that is too large for one.') from None
    if type(value) is not kind:
        raise UserError(f'{key} expects {article(kind)}; got {shown(value)}.')
    return value


def article(kind: type) -> str:
    name = {'int': 'integer', 'str': 'string', 'bool': 'boolean'}.get(kind.__name__, kind.__name__)
    return f'an {name}' if name[0] in 'aeiou' else f'a {name}'


def nearest(key: str, known: Sequence[str]) -> str:
    """The known keys with the same last name, else with the same initials (lr: learning_rate), else spelled alike."""
    section, _, name = key.rpartition('.')
    alike = [one for one in known if one.rpartition('.')[2] == name]
    alike = alike or [one for one in known if ''.join(re.findall('(?:^|_)(.)', one.rpartition('.')[2])) == name]
    near = difflib.get_close_matches(section, {one.rpartition('.')[0] for one in alike}, n=1)
    alike = [one for one in alike if one.rpartition('.')[0] in near] or alike
    return f'Did you mean {" or ".join(alike)}?' if alike else did_you_mean(key, known)
