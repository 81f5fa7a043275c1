"""genbench's only way to read JSON and JSONL: regular files of UTF-8 text, checked against an expected shape.

A shape describes a value, and is itself written as data:

* a type: `str`, `bool`, `int` (not a boolean, within 64 bits), `float` (integers included), `object` for anything;
* a text for exactly that text, `None` for null, and a tuple for alternatives: `(float, None)`;
* `[shape]` for a list whose items have that shape;
* `{'key': shape}` for an object with at least these keys, of which those that end in '?' may be missing;
* `{str: shape}` for an object with any keys and values of that shape; `dict` for any object.
"""

import contextlib
import errno
import json
import math
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from genbench import remote
from genbench.errors import UserError
from genbench.ranges import check_path, shown

MOST_BYTES = 2**30
_DEEPEST = 64  # levels of nested lists and objects
_LARGEST = 2**63  # bound on integers
_LARGEST_FLOAT = 2**1000  # bound on integers that stand for floats
_TROUBLE = {
    errno.ELOOP: 'it is a link that leads to itself',
    errno.EACCES: 'permission is denied',
    errno.EPERM: 'it is not permitted',
    errno.EIO: 'the disk or the network failed',
    errno.ESTALE: 'the network file system lost it',
    errno.ENXIO: 'it is not a regular file',
}


class Missing(UserError):
    """The file does not exist."""


class Damaged(UserError):
    """The file exists, but its contents are not what they should be."""


def read_bytes(path: pathlib.Path, most: int = MOST_BYTES) -> bytes:
    """The contents of a regular file. Anything that could block, such as a pipe, is refused.

    Raises:
      Missing: there is no such file.
      Damaged: it is not a file of at most `most` bytes, or it cannot be read.
    """
    check_path(str(path), 'The path')
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0))
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f'There is no file {path}.') from None
    except OSError as error:
        raise _unreadable(path, error) from None
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        os.close(number)
        raise Damaged(f'{path} is {_kind(found.st_mode)}, but should be a file; move it away.')
    with open(number, 'rb') as file:
        if found.st_size > most:
            raise Damaged(f'{path} has {found.st_size:,} bytes, more than the {most:,} that are allowed.')
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from None


def check_kind(path: pathlib.Path) -> None:
    """Raise Damaged if the path is neither a file nor a folder: a reader would wait for ever on a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Damaged(f'{path} is {_kind(mode)}, but should be a file.')


def _unreadable(path: pathlib.Path, error: OSError) -> Damaged:
    return Damaged(f'{path} cannot be read: {_TROUBLE.get(error.errno or 0, error.strerror)}.')


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return 'a folder'
    return 'a named pipe' if stat.S_ISFIFO(mode) else 'a device or socket'


def read_json(path: pathlib.Path, shape: Any, advice: str = '') -> Any:
    """The value in a JSON file, checked against the shape.

    Args:
      advice: what to do if the file is damaged; by default, to restore or remove it.

    Raises:
      Missing, Damaged: with one line that says what is wrong.
    """
    data = read_bytes(path)
    try:
        return parse(data, shape)
    except ValueError as error:
        told = advice or 'Restore it, or delete it if genbench can write it again.'
        raise Damaged(f'{path} is damaged: {error}. {told}') from None


def read_json_if_any(path: pathlib.Path, shape: Any, advice: str = '') -> Any:
    """Like `read_json`; None if the file does not exist."""
    with contextlib.suppress(Missing):
        return read_json(path, shape, advice)
    return None


def parse(data: bytes | str, shape: Any) -> Any:
    """The value of a JSON text, checked against the shape.

    Raises:
      ValueError: it is not JSON, nests too deep, holds NaN or infinity, or has another shape. The message says where.
    """
    try:
        value = json.loads(_text(data), parse_constant=_refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError('it is empty' if not data.strip() else f'it is not JSON ({error})') from None
    except RecursionError:
        raise ValueError('its lists and objects nest too deeply') from None
    _check_depth(value)
    _check(value, shape, 'it')
    return value


def _text(data: bytes | str) -> str:
    try:
        return data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError:
        raise ValueError('it is not UTF-8 text') from None


def _refuse(word: str) -> float:
    raise ValueError(f'it contains {word}, which is not JSON')


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'it contains a number that is too large: {shown(text)}')
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [item for holder in level if isinstance(holder, dict | list) for item in _items(holder)]
        if not level:
            return
    raise ValueError('its lists and objects nest too deeply')


def _items(holder: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(holder.values() if isinstance(holder, dict) else holder)


def _check(value: Any, shape: Any, where: str) -> None:
    """Raise a ValueError if a value does not have the shape."""
    if isinstance(shape, tuple):
        if not any(_fits(value, one) for one in shape):
            raise ValueError(f'{where} should be {" or ".join(map(_words, shape))}, not {shown(value)}')
    elif isinstance(shape, Mapping):
        _check(value, dict, where)
        for key, part in _parts(value, shape):
            if key not in value:
                raise ValueError(f'{where} has no {key!r}')
            _check(value[key], part, repr(key) if where == 'it' else f'{key!r} of {where}')
    elif isinstance(shape, list):
        _check(value, list, where)
        for item in value:
            _check(item, shape[0], f'an item of {where}')
    elif not _is(value, shape):
        raise ValueError(f'{where} should be {_words(shape)}, not {shown(value)}')


def _parts(value: Mapping[str, Any], shape: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """(key, shape) for the keys to check."""
    for key, part in shape.items():
        if key is str:
            yield from ((one, part) for one in value)
        elif not key.endswith('?'):
            yield key, part
        elif key[:-1] in value:
            yield key[:-1], part


def _fits(value: Any, shape: Any) -> bool:
    if not isinstance(shape, tuple | list | Mapping):
        return _is(value, shape)
    try:
        _check(value, shape, 'it')
    except ValueError:
        return False
    return True


def _is(value: Any, kind: Any) -> bool:
    if kind is None or isinstance(kind, str):
        return value == kind
    if kind is float and isinstance(value, float):
        return True
    if kind in (int, float):
        largest = _LARGEST if kind is int else _LARGEST_FLOAT
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= largest
    return isinstance(value, kind)


_NAMES = {int: 'an integer', float: 'a number', str: 'a text', bool: 'true or false', dict: 'an object', list: 'a list'}


def _words(shape: Any) -> str:
    if isinstance(shape, Mapping | list):
        return _NAMES[type(shape) if isinstance(shape, list) else dict]
    if isinstance(shape, str):
        return shape
    return 'null' if shape is None else _NAMES[shape]


def read_rows(path: pathlib.Path, shape: Any = dict) -> list[dict[str, Any]]:
    """The rows of a JSONL file, each an object of this shape. Empty if there is no file.

    Half-written lines and anything else that is not an object, as a crash can leave behind, are skipped. A line that is
    repeated directly counts once.

    Raises:
      Damaged: a line is an object of another shape.
    """
    try:
        lines = read_bytes(path).splitlines()
    except Missing:
        return []
    rows, last = [], b''
    for number, line in enumerate(lines, start=1):
        if line != last and line.strip():
            row = _row(path, number, line, shape)
            rows += [] if row is None else [row]
        last = line
    return rows


def _row(path: pathlib.Path, number: int, line: bytes, shape: Any) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_constant=_null, parse_float=_finite_or_null)
        _check_depth(row)
        if not isinstance(row, dict):
            return None
        _check(row, shape, 'it')
        return row
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    except RecursionError:
        problem = 'its lists and objects nest too deeply'
    except ValueError as error:
        problem = str(error)
    raise Damaged(f'{path}:{number} is not a valid row: {problem}. Repair or delete that line.')


def _null(_: str) -> None:
    """Read NaN as None. genbench writes null for non-finite numbers, other tools write NaN."""


def _finite_or_null(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def check_entries(folder: pathlib.Path, files: tuple[str, ...], folders: tuple[str, ...]) -> None:
    """Raise a UserError if something else occupies a name that genbench uses in a folder."""
    remote.check_local(folder)
    check_path(str(folder), 'The path')
    for names, right, wanted in ((files, stat.S_ISREG, 'a file'), (folders, stat.S_ISDIR, 'a folder')):
        for name in names:
            try:
                mode = (folder / name).stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unreadable(folder / name, error) from None
            if not right(mode):
                kind = 'a file' if stat.S_ISREG(mode) else _kind(mode)
                raise UserError(f'{folder / name} is {kind}, but should be {wanted}; move it away.')
