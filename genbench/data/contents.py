"""The contents of a source of images before any of them is decoded: rows, splits, classes and fields."""

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
      name: its unique name in the source. The name decides its place in the order, and its split if no folders do.
      where: how `Contents.read` locates it.
      label: its class.
      fields: its further fields, by name.
    """

    name: str
    where: Any
    label: int = 0
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contents:
    """A source of images.

    Attributes:
      name: the name of the data set, without the processing of its pixels.
      splits: the rows of each split, by the split's name, in the order in which they are written.
      read: row → the same row with all its fields, and its picture: a path, the bytes of a file, or an array. It is
        also sent to other processes.
      classes: the names of the classes; empty without labels.
      fields: the kind of each field, by name.
      notes: sentences that tell the user how the source was interpreted.
    """

    name: str
    splits: Mapping[str, Sequence[Row]]
    read: Callable[[Row], tuple[Row, Any]]
    classes: Sequence[str] = ()
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in a pseudo-random order, so that a slice is a fair sample. Adding or removing rows keeps the order."""
    return sorted(rows, key=lambda row: (_hash(row.name)[8:], row.name))


def is_test(name: str, share: float) -> bool:
    """Whether the hash of a name puts its image into this fraction of all images, independently of other images."""
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
            raise UserError(f'A test share of {share:g} leaves none of {total} images in {split!r} (data.test_share, '
                            '--test-share). Choose another share, or make folders train/ and test/.')  # fmt: skip
    return found


def _hash(name: str) -> bytes:
    """A hash of a name that does not depend on how its accents are encoded, since file systems change that."""
    return hashlib.sha256(unicodedata.normalize('NFC', name).encode('utf-8', 'surrogateescape')).digest()


def kind(values: Iterable[Any]) -> str:
    """The kind of field that fits all these values; '' if there is none."""
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
    """A name that files, tables and TFDS accept, in any script."""
    kept = ''.join(character if character.isalnum() else '_' for character in unicodedata.normalize('NFC', text))
    return kept.strip('_')[:40] or 'images'


def printable(text: str) -> str:
    """A name as one line of valid Unicode, since file names may be anything else."""
    return ' '.join(text.encode('utf-8', 'replace').decode().split())
