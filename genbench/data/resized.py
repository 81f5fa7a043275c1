"""A prepared TFDS set as the source of another set, with images of another size."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genbench.data import contents, sources
from genbench.data.contents import Contents, Row
from genbench.data.recipe import Recipe
from genbench.errors import UserError


def open_set(name: str, data_dir: str, recipe: Recipe) -> tuple[Contents, str]:
    """The contents of a prepared TFDS set and its folder.

    Raises:
      UserError: it is not prepared, has no images of 8 or 16 bits, or a split is empty.
    """
    if recipe.labels not in ('', 'none'):
        raise UserError(f'{name} has its own labels; remove data.labels, or set it to none.')
    builder = sources.open_builder(name, data_dir)
    features = builder.info.features
    if 'image' not in features:
        raise UserError(f'{name} has no feature "image"; genbench reads image data sets only.')
    metadata = builder.info.metadata or {}
    if metadata.get('levels', 256) != 256:
        raise UserError(f'The pixels of {name} have {metadata["levels"]} levels; genbench resizes only 256.')
    label = dict(features).get('label')
    classes = list(getattr(label, 'names', ())) if recipe.labels != 'none' else []
    kinds = {one: sources.kind(feature) for one, feature in features.items() if one not in ('image', 'label')}
    fields = {one: kind for one, kind in ((one, _kind(features[one], kind)) for one, kind in kinds.items()) if kind}
    rows = {
        split: [Row(f'{split}/{number}', (split, number)) for number in range(info.num_examples)]
        for split, info in builder.info.splits.items()
    }
    splits: Mapping[str, Sequence[Row]] = rows
    notes = []
    if 'test' not in rows and 'validation' not in rows and 'train' in rows:
        splits = contents.by_hash(rows['train'], recipe.test_share)
        notes.append(f'test: {recipe.test_share:.0%} of the images, chosen by a hash of their indices')
    read = functools.partial(_read, name, data_dir, tuple(fields), bool(classes))
    return Contents(contents.slug(name), splits, read, classes, fields, notes), str(builder.data_path)


def _kind(feature: Any, kind: str) -> str:
    """The kind of a field that is kept: texts, and numbers with at most one dimension."""
    if not kind or kind == contents.TEXT:
        return kind
    if len(feature.shape) > 1:
        return ''
    length = f':{feature.shape[0]}' if feature.shape else ''
    return (contents.INTEGER if np.dtype(feature.np_dtype).kind in 'bui' and not length else contents.REAL) + length


@functools.lru_cache(maxsize=4)
def _source(name: str, data_dir: str, split: str) -> Any:
    return sources.open_builder(name, data_dir).as_data_source(split)


def _read(name: str, data_dir: str, fields: Sequence[str], labelled: bool, row: Row) -> tuple[Row, Any]:
    split, number = row.where
    (record,) = _source(name, data_dir, split).__getitems__([number])
    values = {one: record[one].decode() if isinstance(record[one], bytes) else record[one] for one in fields}
    return Row(row.name, row.where, int(record['label']) if labelled else 0, values), np.asarray(record['image'])
