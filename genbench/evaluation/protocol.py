"""The protocol of a number: its hash, the differences between two protocols, and whether numbers may be ranked."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from genbench.errors import UserError
from genbench.ranges import check_path
from genbench.reading import read_json, read_rows

# These say what was measured, not how. Two models may differ in them and still be compared.
# 'labels' occurs in rows from before there were other kinds of conditions.
MODEL_KEYS = ('sampler', 'steps', 'nfe', 'guidance', 'sampler_options', 'average', 'borrowed', 'given', 'given_from',
              'labels', 'images')  # fmt: skip


def stem(drawn: Mapping[str, Any]) -> str:
    """The sampler of a protocol, as part of a file name: heun_25, heun_25_g2.0 or ancestral_50_variance-large."""
    name = f'{drawn["sampler"]}_{drawn["steps"]}' + (f'_g{drawn["guidance"]}' if drawn.get('guidance') else '')
    options = sorted(drawn.get('sampler_options', {}).items())
    return name + ''.join(f'_{key}-{re.sub(r"[^a-zA-Z0-9.=-]", "-", str(value))[:80]}' for key, value in options)


def told_options(drawn: Mapping[str, Any]) -> str:
    """The non-default options of a protocol's sampler, for display: 'variance=large, spacing=quadratic'."""
    return ', '.join(f'{key}={value}' for key, value in sorted(drawn.get('sampler_options', {}).items()))


_ROW = {'metric': str, 'protocol': dict}  # the keys of a row that a comparison needs


def picture(drawn: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """File name of the grid of samples with this protocol, heun_25.png or heun_25_g2.0.png.

    The name includes the average or the seed if it differs from the one in the evaluation's `options`.
    """
    name = stem(drawn)
    for key in ('average', 'seed'):
        if drawn.get(key) not in (None, options.get(key, drawn.get(key))):
            name += f'_{key}-{str(drawn[key]).replace(":", "-")}'
    return f'{name}.png'


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol(Mapping[str, Any]):
    """Everything a number depends on except the checkpoint. Two protocols are equal if all their values are."""

    values_: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'values_', json.loads(json.dumps(dict(self.values_))))

    def __getitem__(self, key: str) -> Any:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self.hash == Protocol(other).hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @functools.cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the values in canonical order."""
        return hashlib.sha256(json.dumps(self.values_, sort_keys=True).encode()).hexdigest()[:12]

    @functools.cached_property
    def measurement(self) -> 'Protocol':
        """The protocol without what was measured. Numbers for which this is equal may be ranked."""
        return Protocol({key: value for key, value in self.values_.items() if key not in MODEL_KEYS})

    def flatten(self) -> dict[str, Any]:
        """{'reference.split': 'train', …}"""
        return dict(_flatten(self.values_, ''))

    def difference(self, other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Keys whose values differ → (here, there); a missing key reads as None."""
        here, there = self.flatten(), Protocol(other).flatten()
        keys = [*here, *(key for key in there if key not in here)]
        return {key: (here.get(key), there.get(key)) for key in keys if here.get(key) != there.get(key)}


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def read_row(address: str) -> dict[str, Any]:
    """The row that PATH:LINE or PATH:METRIC names in a results.jsonl, a run folder or a JSON of `genbench metrics`.

    LINE counts from 1; METRIC takes the last row of that name.

    Raises:
      UserError: no such file, line or metric.
    """
    text, _, which = address.rpartition(':')
    path = pathlib.Path(check_path(text, 'The path'))
    if not text or not which:
        raise UserError(f'{address!r} is not a row; write PATH:LINE or PATH:METRIC, for example runs/a:3 or runs/a:fd.')
    rows = _rows(path / 'results.jsonl' if path.is_dir() else path)
    if which.isdigit():
        if not 1 <= int(which) <= len(rows):
            raise UserError(f'{path} has no row {which}; its rows are 1 to {len(rows)}.')
        return rows[int(which) - 1]
    named = [row for row in rows if row['metric'] == which]
    if not named:
        known = ', '.join(sorted({row['metric'] for row in rows})) or 'none'
        raise UserError(f'{path} has no row with the metric {which!r}; its metrics are {known}.')
    return named[-1]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    if path.suffix == '.jsonl':
        return read_rows(path, _ROW)
    advice = 'It should be a results.jsonl, or a JSON file of genbench metrics.'
    return read_json(path, {'rows': [_ROW]}, advice)['rows']


def compare(left: Mapping[str, Any], right: Mapping[str, Any]) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """Return (verdict, differences) for two result rows: whether their numbers may be ranked together."""
    a, b = Protocol(left['protocol']), Protocol(right['protocol'])
    different = a.difference(b)
    for key in ('metric', 'kind', 'dataset', 'split', 'checkpoint_step', 'config_hash'):
        if left.get(key) != right.get(key):
            different = {key: (left.get(key), right.get(key)), **different}
    same_measure = all(left.get(key) == right.get(key) for key in ('metric', 'kind', 'dataset', 'split'))
    if a.hash == b.hash and same_measure:
        return f'The protocols are the same ({a.hash}).', different
    if a.measurement.hash == b.measurement.hash and same_measure:
        return f'The models were measured the same way ({a.measurement.hash}). You may rank them.', different
    return 'They were measured in different ways. Do not rank them without saying so.', different
