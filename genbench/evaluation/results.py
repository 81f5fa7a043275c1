"""Rows of results.jsonl: one number each, with everything it depends on."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from genbench.training.metrics import read_rows

KEYS = (
    'family', 'dataset', 'split', 'metric', 'value', 'std_err', 'kind', 'n', 'seed', 'sampler', 'nfe', 'features',
    'checkpoint_step', 'config_hash', 'protocol',
)  # fmt: skip


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits: equal for numbers that may stand side by side."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([row['metric'], row['checkpoint_step'], row['config_hash'], row['protocol']], sort_keys=True)


class Results:
    """The rows of a run. A number that is there under the same protocol is not computed again."""

    def __init__(self, path: pathlib.Path, fresh: bool = False):
        self._path = path
        self.rows = [] if fresh else read_rows(path)
        if self.rows or path.is_file():
            path.write_text(''.join(json.dumps(row) + '\n' for row in self.rows))  # drops a half-written last line

    def has(self, metric: str, protocol: Mapping[str, Any], step: int, config_hash: str) -> bool:
        wanted = {'metric': metric, 'checkpoint_step': step, 'config_hash': config_hash, 'protocol': _plain(protocol)}
        return _identity(wanted) in {_identity(row) for row in self.rows}

    def add(self, **row: Any) -> dict[str, Any]:
        """Append one row; keys that are not given are null."""
        unknown = set(row) - set(KEYS)
        if unknown:
            raise TypeError(f'not keys of a result row: {unknown}')
        complete = {key: row.get(key) for key in KEYS}
        complete['protocol'] = _plain(row.get('protocol') or {})
        with self._path.open('a') as file:
            file.write(json.dumps(complete) + '\n')
        self.rows.append(complete)
        return complete


def _plain(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(protocol)))
