"""Rows of results.jsonl: one number each, with everything it depends on."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from genbench.evaluation.protocol import Protocol
from genbench.reading import read_rows
from genbench.training import processes
from genbench.training.files import write_atomically

HELD_OUT, COPIES = 'held-out real images', 'copies of training images'
RANKING = ('fid', 'fd', 'sliced_wasserstein', 'w2')  # models are ranked by the first of these that was measured
BOUNDS = (HELD_OUT, COPIES)  # the family of rows without a model: new images, and memorised ones

KEYS = (
    'family', 'dataset', 'split', 'metric', 'value', 'std_err', 'kind', 'n', 'seed', 'sampler', 'nfe', 'features',
    'checkpoint_step', 'config_hash', 'protocol',
    'protocol_hash',
    'sd', 'values',  # one number per disjoint set of samples; `value` is their mean
    'discretisation_error',  # of a likelihood by a solver
    'details',  # parts of a bound, spread over subsets, interval, …
)  # fmt: skip


_TEXT, _NUMBER, _WHOLE = (str, None), (float, None), (int, None)
ROW = {  # keys of results.jsonl; older formats lack some
    'metric': str, 'value?': _NUMBER, 'std_err?': _NUMBER, 'sd?': _NUMBER, 'kind?': _TEXT, 'n?': _WHOLE,
    'checkpoint_step?': _WHOLE, 'config_hash?': _TEXT, 'protocol?': (dict, None), 'protocol_hash?': _TEXT,
    'values?': ([_NUMBER], None), 'discretisation_error?': _NUMBER, 'details?': (dict, None), 'nfe?': _NUMBER,
    'seed?': _WHOLE, 'trial?': _TEXT, 'variant?': _TEXT, 'study?': _TEXT, 'family?': _TEXT, 'dataset?': _TEXT,
    'split?': _TEXT, 'sampler?': _TEXT, 'features?': _TEXT, 'settings?': (dict, None),
}  # fmt: skip


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the rows of a results.jsonl; [] if there is no file.

    Raises:
      UserError: a line is JSON of an unexpected shape.
    """
    return [{**row, 'protocol': row.get('protocol') or {}} for row in read_rows(path, ROW)]


def complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with every key and a plain, hashed protocol. Values that JSON cannot express (NaN) become null."""
    unknown = set(row) - set(KEYS)
    if unknown:
        raise TypeError(f'not keys of a result row: {unknown}')
    protocol = Protocol(row.get('protocol') or {})
    filled = {key: row.get(key) for key in KEYS}
    filled |= {'protocol': dict(protocol), 'protocol_hash': protocol.hash}
    return {key: _finite(value) for key, value in filled.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    found = row.get('protocol_hash') or Protocol(row.get('protocol') or {}).hash
    return row['metric'], row.get('checkpoint_step'), row.get('config_hash'), found


class Results:
    """The result rows of a run. A number that exists under the same protocol is not computed again."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.rows = read_rows(path, ROW)
        self._known = {_identity(row) for row in self.rows}
        kept = ''.join(json.dumps(row) + '\n' for row in self.rows)
        if processes.is_first() and path.is_file() and path.read_bytes() != kept.encode():
            write_atomically(path, kept)  # leaves out a half-written last line

    def has(self, metric: str, protocol: Mapping[str, Any], step: int | None, config_hash: str | None) -> bool:
        return (metric, step, config_hash, Protocol(protocol).hash) in self._known

    def add(self, **row: Any) -> dict[str, Any]:
        """Append one row; keys that are not given become null."""
        filled = complete(row)
        with self._path.open('a') as file:
            file.write(json.dumps(filled) + '\n')
        self.rows.append(filled)
        self._known.add(_identity(filled))
        return filled
