"""What a source of images holds, before any of them is decoded: rows, splits, classes and fields."""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from genbench.errors import UserError

TEXT, INTEGER, REAL = 'text', 'int64', 'float32'  # kinds of fields; a list of n numbers is f'{REAL}:{n}'


@dataclasses.dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
      name: its own in its source, which decides its place in the order and, without folders for it, its split.
      where: what `Contents.read` finds it by.
      label: its class.
      fields: what else is known of it, by name.
    """

    name: str
    where: Any
    label: int = 0
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contents:
    """A source of images.

    Attributes:
      name: of the data set, without what is done to its pixels.
      splits: rows by the name of the split, in the order in which they are written.
      read: a row → the same row with all its fields, and its picture: a path, the bytes of a file, or an array. Other
        processes get it, too.
      classes: their names; empty without labels.
      fields: kinds by name.
      notes: what a user should know of how it was understood, a sentence each.
    """

    name: str
    splits: Mapping[str, Sequence[Row]]
    read: Callable[[Row], tuple[Row, Any]]
    classes: Sequence[str] = ()
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in an order that looks random and stays when others come or go, so that a slice is a fair sample."""
    return sorted(rows, key=lambda row: (_hash(row.name)[8:], row.name))


def is_test(name: str, share: float) -> bool:
    """Whether the hash of a name puts its image among this share of all images, whatever others there are."""
    return int.from_bytes(_hash(name)[:8], 'big') < share * 2**64


def by_hash(rows: Iterable[Row], share: float) -> dict[str, list[Row]]:
    """`train` and `test`.

    Raises:
      UserError: one of them is empty.
    """
    found: dict[str, list[Row]] = {'train': [], 'test': []}
    for row in rows:
        found['test' if is_test(row.name, share) else 'train'].append(row)
    for split, inside in found.items():
        if not inside:
            total = sum(map(len, found.values()))
            raise UserError(f'A test share of {share:g} leaves no image of {total} in {split!r} (data.test_share, '
                            '--test-share); state another, or make folders train/ and test/.')  # fmt: skip
    return found


def _hash(name: str) -> bytes:
    """The same for a name however its accents are encoded, which file systems change."""
    return hashlib.sha256(unicodedata.normalize('NFC', name).encode('utf-8', 'surrogateescape')).digest()


def kind(values: Iterable[Any]) -> str:
    """The kind of field that all these values fit; '' where there is none."""
    kinds = {_kind(value) for value in values}
    if kinds == {INTEGER, REAL}:
        return REAL
    return kinds.pop() if len(kinds) == 1 else ''


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return TEXT
    if isinstance(value, int) and abs(value) < 2**31:
        return INTEGER
    if isinstance(value, int | float):
        return REAL
    if isinstance(value, list) and value and all(_kind(one) in (INTEGER, REAL) for one in value):
        return f'{REAL}:{len(value)}'
    return ''


def slug(text: str) -> str:
    """A name that files, tables and TFDS take, in whatever script."""
    kept = ''.join(character if character.isalnum() else '_' for character in unicodedata.normalize('NFC', text))
    return kept.strip('_')[:40] or 'images'


def printable(text: str) -> str:
    """A name in one line of valid Unicode, which names of files need not be."""
    return ' '.join(text.encode('utf-8', 'replace').decode().split())
