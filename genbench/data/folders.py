"""A folder of images as a data set: `data.name=folder:DIR`.

* Splits: the folders train/ and test/ (or val/, valid/, validation/), if there are any. Otherwise the hash of a file's
  name decides whether it belongs to test, so an image keeps its split when others are added.
* Labels: the folders one level below, if every image is in one of them and there are at least two.
* Further fields: metadata.jsonl, metadata.csv or captions.csv, next to the images or to the class folders. Each row
  names its file (`file_name`). A text called `text` is read as `caption`.
"""

import contextlib
import csv
import dataclasses
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from genbench import reading
from genbench.data import contents as held
from genbench.data.contents import Contents, Row
from genbench.data.recipe import Recipe
from genbench.errors import Unprepared, UserError

SPLITS = ('train', 'test', 'val', 'valid', 'validation')
TABLES = ('metadata.jsonl', 'metadata.csv', 'captions.csv')
FILE_NAMES = ('file_name', 'filename', 'file', 'image', 'path')  # columns of a table that may name the file
CAPTIONS = ('text', 'captions', 'prompt')  # columns that hold the caption if no column is called `caption`
FEW = 3  # how many names a message lists


@dataclasses.dataclass(frozen=True)
class File:
    """A file in a folder: its name with /, its size in bytes, and the time of its last change in nanoseconds."""

    name: str
    size: int
    changed: int


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of files that should be pictures."""
    Image.init()
    return frozenset(ending for ending, kind in Image.EXTENSION.items() if kind in Image.OPEN and kind != 'PDF')


def is_image(name: str) -> bool:
    return pathlib.PurePosixPath(name).suffix.lower() in suffixes()


def matters(name: str) -> bool:
    """Whether a change to this file changes the data."""
    return is_image(name) or name.rpartition('/')[2] in TABLES


def files(folder: pathlib.Path) -> Iterator[File]:
    """Every file below a folder except hidden ones, sorted by name within each folder. Links are followed once.

    Raises:
      UserError: there is no such folder, or it cannot be read.
    """
    if not os.path.isdir(folder):
        raise Unprepared(f'There is no folder {folder}.')
    seen: set[tuple[int, int]] = set()
    waiting = [('', str(folder))]
    while waiting:
        prefix, path = waiting.pop()
        try:
            found = os.stat(path)
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f'The folder {path} cannot be read: {error.strerror}.') from None
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        for entry in entries:
            if entry.name.startswith('.') or entry.name == '__MACOSX':
                continue
            try:
                if entry.is_dir():
                    waiting.append((f'{prefix}{entry.name}/', entry.path))
                else:
                    about = entry.stat()
                    yield File(prefix + entry.name, about.st_size, about.st_mtime_ns)
            except OSError:  # a broken link
                yield File(prefix + entry.name, 0, 0)


def open_folder(path: str, recipe: Recipe) -> Contents:
    """The contents of a folder, from the names of its files and from its tables.

    Raises:
      UserError: the folder holds no image, a table is damaged, or a split is empty.
    """
    folder = pathlib.Path(path).expanduser()
    found = list(files(folder))
    images = [file.name for file in found if is_image(file.name)]
    if not images:
        some = ', '.join(file.name for file in found[:FEW]) or 'nothing'
        raise UserError(f'{folder} has no image files; it has {some}.')
    notes = []
    if others := [file.name for file in found if not matters(file.name)]:
        notes.append(f'files that are not images: {told(others)}')
    splits, tops = _by_folder(images)
    below = {name: tops.get(name, '') for name in images}  # the parent of its class folder
    table, fields, said = _fields(folder, images, recipe)
    classes, labels, why = _labels(images, below, table, recipe)
    notes += [*said, *why]
    rows = {
        name: Row(name, name, labels.get(name, 0), {one: table[name][one] for one in fields if one in table[name]})
        for name in images
    }
    if splits:
        named = {split: [rows[name] for name in names] for split, names in splits.items()}
    else:
        named = held.by_hash(rows.values(), recipe.test_share)
        notes.append(f'test: {recipe.test_share:.0%} of the images, chosen by a hash of their names')
    ordered = {split: held.in_order(inside) for split, inside in named.items()}
    name = held.slug(folder.resolve().name)
    return Contents(name, ordered, functools.partial(_read, str(folder)), classes, fields, notes)


def _read(folder: str, row: Row) -> tuple[Row, Any]:
    return row, pathlib.Path(folder, row.where)


def told(names: list[str]) -> str:
    """'a, b, c and 4 more'."""
    more = f' and {len(names) - FEW:,} more' if len(names) > FEW else ''
    return ', '.join(map(held.printable, names[:FEW])) + more


def _by_folder(images: list[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The images of each split, if there are split folders, and the split folder of each image, such as 'train/'.

    Raises:
      UserError: there are split folders, but also images outside of them.
    """
    first = [name.partition('/')[0] if '/' in name else '' for name in images]
    named = sorted(set(first) & set(SPLITS), key=SPLITS.index)
    if not named:
        return {}, {}
    beside = [name for name, top in zip(images, first, strict=True) if top not in named]
    if beside:
        raise UserError(f'The folder has {named[0]}/ and images in no split: {told(beside)}. Move them into '
                        'a split.')  # fmt: skip
    tops = {name: f'{top}/' for name, top in zip(images, first, strict=True)}
    if named == ['train']:
        return {}, tops
    if 'train' not in named:
        raise UserError(f'The folder has {"/, ".join(named)}/ but no train/.')
    return {split: [name for name in images if tops[name] == f'{split}/'] for split in named}, tops


def _labels(
    images: list[str], below: Mapping[str, str], table: Mapping[str, Mapping[str, Any]], recipe: Recipe
) -> tuple[list[str], dict[str, int], list[str]]:
    """The names of the classes, the class of each image, and notes for the user."""
    if recipe.labels == 'none':
        return [], {}, []
    if recipe.labels:
        return _field_labels(images, table, recipe.labels)
    inside = {name: name[len(below[name]) :] for name in images}
    folders = {name: part.partition('/')[0] for name, part in inside.items() if '/' in part}
    names = sorted(set(folders.values()))
    if not names:
        return _field_labels(images, table, 'label') if any('label' in row for row in table.values()) else ([], {}, [])
    if len(folders) < len(images):
        beside = [name for name in images if name not in folders]
        return [], {}, [f'no labels, because these images are in no class folder: {told(beside)}']
    if len(names) == 1:
        return [], {}, [f'no labels, because all images are in one folder, {held.printable(names[0])}']
    number = {name: index for index, name in enumerate(names)}
    return [held.printable(name) for name in names], {name: number[top] for name, top in folders.items()}, []


def _field_labels(
    images: list[str], table: Mapping[str, Mapping[str, Any]], field: str
) -> tuple[list[str], dict[str, int], list[str]]:
    """Classes from the values of a field, which are texts or integers."""
    values = {name: table[name].get(field) for name in images}
    missing = [name for name, value in values.items() if not isinstance(value, str | int)]
    if missing:
        raise UserError(f'{len(missing):,} images have no text or integer field {field!r} in {", ".join(TABLES)} '
                        f'(data.labels, --labels): {told(missing)}.')  # fmt: skip
    found = sorted(set(values.values()), key=lambda value: (isinstance(value, str), value))
    if len(found) == 1:
        return [], {}, [f'no labels, because the field {field} is always {found[0]}']
    index = {value: number for number, value in enumerate(found)}
    return [held.printable(str(value)) for value in found], {name: index[value] for name, value in values.items()}, []


def _fields(
    folder: pathlib.Path, images: list[str], recipe: Recipe
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str]]:
    """Each image's values from the tables, the kinds of the fields that every image has, and notes for the user."""
    table: dict[str, dict[str, Any]] = {name: {} for name in images}
    known = {unicodedata.normalize('NFC', name): name for name in images}  # tables may encode accents differently
    notes, strange = [], []
    tops = sorted({'', *(f'{name.partition("/")[0]}/' for name in images if name.partition('/')[0] in SPLITS)})
    for path, prefix in ((folder / top / name, top) for top in tops for name in TABLES):
        for name, values in _rows(path):
            full = unicodedata.normalize('NFC', os.path.normpath(prefix + name).replace(os.sep, '/'))
            if full in known:
                table[known[full]] |= values
            else:
                strange.append(full)
    if strange:
        notes.append(f'table rows that match no image: {told(strange)}')
    names = sorted({key for values in table.values() for key in values} - {'image'})
    kinds = {name: held.kind(values[name] for values in table.values() if name in values) for name in names}
    bare = {name: sum(name not in values for values in table.values()) for name in names}
    for name in names:
        if kinds[name] == held.TEXT and bare[name]:
            notes.append(f'images with an empty {name}: {bare[name]:,}')
            for values in table.values():
                values.setdefault(name, '')
        elif not kinds[name] or bare[name]:
            why = f'{bare[name]:,} images have none' if kinds[name] else 'its values have several types'
            notes.append(f'field {name} left out: {why}')
            kinds[name] = ''
    return table, {name: one for name, one in kinds.items() if one and name not in ('label', recipe.labels)}, notes


def _rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, further values) for each row of a table; nothing if there is no such file."""
    try:
        text = reading.read_bytes(path).decode('utf-8-sig')
    except reading.Missing:
        return
    except UnicodeDecodeError:
        raise UserError(f'{path} is not UTF-8 text.') from None
    for number, row in _jsonl(path, text) if path.suffix == '.jsonl' else _csv(path, text):
        key = next((key for key in FILE_NAMES if isinstance(row.get(key), str)), None)
        if key is None:
            raise UserError(f'{path}:{number} names no file; every row needs a text field {FILE_NAMES[0]}.')
        name = row.pop(key)
        spelt = next((key for key in CAPTIONS if key in row), None)
        if spelt and 'caption' not in row:
            row['caption'] = row.pop(spelt)
        yield name, {key: value for key, value in row.items() if value is not None}


def _jsonl(path: pathlib.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, reading.parse(line, dict)
            except ValueError as error:
                raise UserError(f'{path}:{number} is not a valid row: {error}. Repair or delete that line.') from None


def _csv(path: pathlib.Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV file. A column becomes numbers if all of its values are numbers."""
    try:
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f'{path} is not a CSV table: {error}.') from None
    for number, row in rows:
        if None in row or None in row.values():
            raise UserError(f'{path}:{number} has a different number of values than the header.')
    for column in set(rows[0][1]) - set(FILE_NAMES) if rows else ():
        for (_, row), value in zip(rows, _numbers([row[column] for _, row in rows]), strict=True):
            row[column] = value
    yield from rows


def _numbers(texts: list[str]) -> list[Any]:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return [kind(text) for text in texts]
    return texts
