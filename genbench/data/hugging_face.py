"""A Hugging Face data set as a source of images: `data.name=hf:NAME`. This needs the extra `hf`.

NAME is a folder that `save_to_disk` wrote, or a data set on the hub as NAME or NAME:CONFIG. The first image column is
the image. The first column of class labels is the label, unless `data.labels` names another. Texts and numbers become
fields.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.data import contents
from genbench.data.contents import Contents, Row
from genbench.data.folders import CAPTIONS
from genbench.data.recipe import Recipe
from genbench.errors import UserError

_NUMBERS = {'int': contents.INTEGER, 'uin': contents.INTEGER, 'flo': contents.REAL, 'boo': contents.INTEGER}


def open_set(name: str, recipe: Recipe) -> tuple[Contents, str]:
    """The contents of a data set and its folder, which is '' for a data set on the hub.

    Raises:
      UserError: `datasets` is not installed, there is no such set, it has no images, or a split is empty.
    """
    splits = _load(name)
    features = next(iter(splits.values())).features
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    image = next((column for column, kind in kinds.items() if kind == 'Image'), None)
    if image is None:
        raise UserError(f'hf:{name} has no image column; its columns are {", ".join(kinds)}.')
    label = _label(name, kinds, recipe)
    fields = {
        column: kind for column, kind in ((one, _kind(features[one])) for one in kinds) if kind and column != label
    }
    spelt = next((one for one in CAPTIONS if fields.get(one) == contents.TEXT), None)
    renamed = {spelt: 'caption'} if spelt and 'caption' not in fields else {}
    rows = {split: [Row(f'{split}/{number}', (split, number)) for number in range(len(data))]
            for split, data in splits.items()}  # fmt: skip
    found: Mapping[str, Sequence[Row]] = rows
    notes = []
    if len(rows) == 1:
        (only,) = rows.values()
        found = contents.by_hash(only, recipe.test_share)
        notes.append(f'test: {recipe.test_share:.0%} of the images, chosen by a hash of their indices')
    elif 'train' not in rows:
        raise UserError(f'hf:{name} has the splits {", ".join(rows)}, but no train.')
    read = functools.partial(_read, name, image, label, tuple((one, renamed.get(one, one)) for one in fields))
    classes = [contents.printable(one) for one in features[label].names] if label else []
    local = os.path.realpath(name) if os.path.isdir(name) else ''
    kept = {renamed.get(one, one): kind for one, kind in fields.items()}
    title = os.path.basename(local) or name.rpartition('/')[2]
    return Contents(contents.slug(title), found, read, classes, kept, notes), local


def _label(name: str, kinds: Mapping[str, str], recipe: Recipe) -> str:
    named = [column for column, kind in kinds.items() if kind == 'ClassLabel']
    if recipe.labels and recipe.labels != 'none' and recipe.labels not in named:
        raise UserError(f'hf:{name} has no class labels called {recipe.labels!r} (data.labels); it has '
                        f'{", ".join(named) or "none"}.')  # fmt: skip
    return '' if recipe.labels == 'none' else recipe.labels or (named[0] if named else '')


def _kind(feature: Any) -> str:
    """The kind of a field with one text or number; '' for any other column."""
    of = str(getattr(feature, 'dtype', ''))
    if type(feature).__name__ != 'Value':
        return ''
    return contents.TEXT if of in ('string', 'large_string') else _NUMBERS.get(of[:3], '')


@functools.lru_cache(maxsize=2)
def _load(name: str) -> dict[str, Any]:
    """The splits of a data set. Images are left as the bytes of their files."""
    try:
        import datasets
    except ImportError:
        raise UserError("data.name=hf:… needs the package datasets; install it with pip install -e '.[hf]'") from None
    datasets.disable_progress_bars()
    try:
        found = datasets.load_from_disk(name) if os.path.isdir(name) else datasets.load_dataset(*name.split(':', 1))
    except Exception as error:  # from the hub, the network, Arrow or the data set's own code
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f'hf:{name} cannot be opened: {lines[0][:200]}') from None
    splits = dict(found) if isinstance(found, dict) else {'train': found}
    for split, data in splits.items():
        for column, feature in data.features.items():
            if type(feature).__name__ == 'Image':
                splits[split] = splits[split].cast_column(column, datasets.Image(decode=False))
    return splits


def _read(name: str, image: str, label: str, fields: Sequence[tuple[str, str]], row: Row) -> tuple[Row, Any]:
    split, number = row.where
    record = _load(name)[split][number]
    picture = record[image] or {}
    values = {new: '' if record[old] is None else record[old] for old, new in fields}
    found = Row(row.name, row.where, int(record[label]) if label else 0, values)
    return found, picture.get('bytes') or picture.get('path') or b''
