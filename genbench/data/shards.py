"""The work of one process in a preparation: read the headers of some pictures, or write some of them to a shard.

The module is light to import, since every process starts with it.
"""

import dataclasses
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genbench.data import crops, decoding
from genbench.data.contents import TEXT, Row, printable
from genbench.data.recipe import Recipe

FEW = 5  # how many file names to keep per problem
Reader = Callable[[Row], tuple[Row, Any]]


@dataclasses.dataclass
class Counts:
    """Counts of what happened to pictures.

    Attributes:
      rows: the number of good pictures.
      grey: the number of grey ones among them.
      sizes: (height, width) → number of pictures; from headers only.
      unreadable: reason → number of files, and the names of a few.
      small: the same for pictures that would have to be enlarged.
      treated: conversion → number of pictures.
      sums: name → CRC-32 of the bytes.
    """

    rows: int = 0
    grey: int = 0
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    small: list[Any] = dataclasses.field(default_factory=lambda: [0, []])
    treated: dict[str, int] = dataclasses.field(default_factory=dict)
    sums: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, other: 'Counts') -> None:
        self.rows, self.grey = self.rows + other.rows, self.grey + other.grey
        for mine, theirs in ((self.sizes, other.sizes), (self.treated, other.treated)):
            for name, number in theirs.items():
                mine[name] = mine.get(name, 0) + number
        for reason, found in other.unreadable.items():
            _more(self.unreadable.setdefault(reason, [0, []]), *found)
        _more(self.small, *other.small)
        self.sums |= other.sums

    def failed(self, name: str, reason: str) -> None:
        _more(self.unreadable.setdefault(reason, [0, []]), 1, [printable(name)])


def _more(mine: list[Any], number: int, names: list[str]) -> None:
    mine[0] += number
    mine[1] = (mine[1] + names)[:FEW]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some rows of a split, and the file that they are written to."""

    path: str
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings that all shards share."""

    read: Reader
    recipe: Recipe
    shape: tuple[int, int, int]
    classes: Sequence[str]
    fields: Mapping[str, str]


def look(read: Reader, rows: Sequence[Row]) -> Counts:
    """Count colour modes and sizes from the headers."""
    counts = Counts()
    for row in rows:
        try:
            picture, _ = decoding.read(read(row)[1])
        except decoding.Unreadable as error:
            counts.failed(row.name, str(error))
            continue
        height, width = decoding.turned_size(picture)
        counts.rows, counts.grey = counts.rows + 1, counts.grey + decoding.is_grey(picture)
        counts.sizes[f'{height}×{width}'] = counts.sizes.get(f'{height}×{width}', 0) + 1
    return counts


def write(plan: Plan, shard: Shard) -> Counts:
    """Decode, crop and write the pictures of a shard, unless it already exists.

    The shard appears under its name once it is complete, with its counts in a file next to it.
    """
    path = pathlib.Path(shard.path)
    beside = path.with_name(f'{path.name}.json')
    if path.is_file() and beside.is_file():
        return Counts(**json.loads(beside.read_text()))
    from array_record.python import array_record_module

    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    writer = array_record_module.ArrayRecordWriter(str(partial), 'group_size:1')
    counts = Counts()
    for row in shard.rows:
        example = _example(plan, row, counts)
        if example is not None:
            writer.write(example)
    writer.close()
    text = beside.with_name(f'.{beside.name}.{os.getpid()}')
    text.write_text(json.dumps(dataclasses.asdict(counts)))
    os.replace(text, beside)
    os.replace(partial, path)
    return counts


def _example(plan: Plan, row: Row, counts: Counts) -> bytes | None:
    try:
        found, source = plan.read(row)
        picture, data = decoding.read(source)
        picture, treated = decoding.plain(picture, plan.shape[2])
        if plan.recipe.shape:
            crop, resample = crops.CROPS[plan.recipe.crop], crops.FILTERS[plan.recipe.filter]
            picture = crop.make(picture, plan.recipe.shape, resample, plan.recipe.upscale)
    except decoding.Unreadable as error:
        counts.failed(row.name, str(error))
        return None
    except crops.TooSmall:
        _more(counts.small, 1, [printable(row.name)])
        return None
    values = np.asarray(picture).reshape(*picture.size[::-1], -1)
    if values.shape != plan.shape:
        counts.failed(row.name, f'it has {values.shape[0]}×{values.shape[1]} pixels')
        return None
    counts.rows += 1
    counts.sums[row.name] = zlib.crc32(data)
    for name in treated:
        counts.treated[name] = counts.treated.get(name, 0) + 1
    more = {'label': found.label} if plan.classes else {}
    features, serializer = _serializer(plan.shape, tuple(plan.classes), tuple(plan.fields.items()))
    return serializer.serialize_example(features.encode_example({'image': values, **more, **found.fields}))


def features(shape: tuple[int, int, int], classes: Sequence[str], fields: Mapping[str, str]) -> Any:
    """The TFDS features of the rows that `write` writes."""
    import tensorflow_datasets as tfds

    kinds = tfds.features
    found = {'image': kinds.Tensor(shape=shape, dtype=np.uint8, encoding=kinds.Encoding.BYTES)}
    if classes:
        found['label'] = kinds.ClassLabel(names=list(classes))
    for name, kind in fields.items():
        number, _, length = kind.partition(':')
        if kind == TEXT:
            found[name] = kinds.Text()
        else:
            found[name] = kinds.Tensor(shape=(int(length),) if length else (), dtype=np.dtype(number).type)
    return kinds.FeaturesDict(found)


@functools.lru_cache(maxsize=1)
def _serializer(shape: Any, classes: Any, fields: Any) -> tuple[Any, Any]:
    from tensorflow_datasets.core import example_serializer

    found = features(shape, classes, dict(fields))
    return found, example_serializer.ExampleSerializer(found.get_serialized_info())
