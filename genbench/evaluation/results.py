"""Rows of results.jsonl: one number each, with everything it depends on."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from genbench.training.metrics import read_rows
from genbench.training.runs import write_atomically

KEYS = (
    'family', 'dataset', 'split', 'metric', 'value', 'std_err', 'kind', 'n', 'seed', 'sampler', 'nfe', 'features',
    'checkpoint_step', 'config_hash', 'protocol',
)  # fmt: skip


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([row['metric'], row['checkpoint_step'], row['config_hash'], row['protocol']], sort_keys=True)


class Results:
    """The rows of a run. A number that is there under the same protocol is not computed again."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self.rows = read_rows(path)
        kept = ''.join(json.dumps(row) + '\n' for row in self.rows)
        if path.is_file() and path.read_text() != kept:
            write_atomically(path, kept)  # without the half-written last line

    def has(self, metric: str, protocol: Mapping[str, Any], step: int | None, config_hash: str | None) -> bool:
        wanted = {'metric': metric, 'checkpoint_step': step, 'config_hash': config_hash, 'protocol': _plain(protocol)}
        return _identity(wanted) in {_identity(row) for row in self.rows}

    def add(self, **row: Any) -> dict[str, Any]:
        """Append one row; keys that are not given are null."""
        unknown = set(row) - set(KEYS)
        if unknown:
            raise TypeError(f'not keys of a result row: {unknown}')
        complete = {key: row.get(key) for key in KEYS}
        if complete['value'] is not None and not math.isfinite(complete['value']):
            complete['value'] = None  # JSON has no NaN; the row says that there is no number
        complete['protocol'] = _plain(row.get('protocol') or {})
        with self._path.open('a') as file:
            file.write(json.dumps(complete) + '\n')
        self.rows.append(complete)
        return complete


def _plain(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(protocol)))
