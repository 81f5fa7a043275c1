"""The baseline ledger: published numbers, how certain each one is, and whether it is reproduced here.

`genbench/baselines.toml` holds what was published. Measurements are under docs/baselines, one JSON file per row,
written by `genbench verify ROW --record`. The status of a row is computed from both and is not stored. Evidence
is outdated if it comes from other code, or from another recipe, than is here now.
"""

import dataclasses
import fnmatch
import pathlib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from genbench import shipped
from genbench.errors import UserError, did_you_mean
from genbench.reading import read_json_if_any
from genbench.studies import records
from genbench.studies.conditions import as_number, split

FILE = shipped.PACKAGE / 'baselines.toml'
EVIDENCE = shipped.ROOT / 'docs' / 'baselines'
RECORDS = EVIDENCE if shipped.CHECKOUT else pathlib.Path('docs') / 'baselines'  # where new evidence goes
CONFIRMED = {
    'text': 'read in its own text',
    'quoted': 'quoted by another paper',
    'memory': 'unconfirmed',
    'measured': 'measured by this project',
}
REPRODUCED, GAP, NOT_RUN, NO_RECIPE = 'reproduced', 'run with gap', 'not yet run', 'no recipe yet'
STATUSES = (REPRODUCED, GAP, NOT_RUN, NO_RECIPE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A published number. `genbench/baselines.toml` explains the fields."""

    id: str
    model: str
    paper: str
    metric: str
    value: float
    confirmed: str
    tolerance: float
    reason: str
    data: str = 'cifar10'
    table: str = ''
    sd: float | None = None
    kind: str = ''
    nfe: int | None = None
    said: str = ''
    lacks: str = ''
    config: str = ''
    overrides: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    lenders: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    images: str = ''
    seeds: int = 1
    parameters: float | None = None
    parameters_tolerance: float = 0.005
    stated: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    open: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    def within(self, value: float | None) -> bool:
        """Whether a measured value reproduces this one."""
        return value is not None and abs(value - self.value) <= self.tolerance

    @property
    def path(self) -> pathlib.Path:
        """The path of the recipe, which ships with genbench or lies in the working directory.

        Raises:
          UserError: there is no such recipe.
        """
        if not self.config:
            why = f': {self.lacks} would be needed' if self.lacks else ''
            raise UserError(f'{self.id} has no recipe yet{why}.')
        return _file(self.config)

    @property
    def lender_recipes(self) -> dict[str, tuple[pathlib.Path, tuple[str, ...]]]:
        """{the family's name for a run that this recipe builds on: (its config, overrides)}."""
        return {name: (_file(config), tuple(overrides)) for name, (config, *overrides) in self.lenders.items()}


def _file(config: str) -> pathlib.Path:
    there = shipped.ROOT / config
    return there if there.is_file() else pathlib.Path(config)


def rows() -> tuple[Row, ...]:
    """The whole ledger."""
    return read(tomllib.loads(FILE.read_text()))


def read(ledger: Mapping[str, Any]) -> tuple[Row, ...]:
    """Rows, each completed with what its source states for all of them."""
    found = []
    for source in ledger['source']:
        shared = {key: value for key, value in source.items() if key != 'rows'}
        for entry in source['rows']:
            values = {**shared, **entry, 'said': _joined(shared.get('said', ''), entry.get('said', ''))}
            by_metric = ledger['tolerance'].get(values['metric'], {})
            width = by_metric.get('absolute', by_metric.get('relative', 0.0) * abs(values['value']))
            more = tuple(ledger['evaluation'].get(values['metric'], ())) + tuple(values.get('evaluation', ()))
            values = {'tolerance': width, 'reason': by_metric.get('reason', ''), **values, 'evaluation': more}
            lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
            found.append(Row(**{**values, **lists}))
    return tuple(found)


def _joined(source: str, row: str) -> str:
    """What a row says, after what its source says of all rows, unless the row repeats it."""
    return row if source in row else '; '.join(filter(None, (source, row)))


def get(name: str) -> Row:
    """The row with this id.

    Raises:
      UserError: there is no such row.
    """
    found = {row.id: row for row in rows()}
    if name not in found:
        raise UserError(f'There is no baseline {name!r}. {did_you_mean(name, found)}')
    return found[name]


def evidence(row: Row, folder: pathlib.Path | None = None) -> dict[str, Any] | None:
    """What `genbench verify --record` wrote for a row. By default it looks here, then among the files that ship."""
    advice = f'genbench verify {row.id} --record writes it again.'
    for place in (RECORDS, EVIDENCE) if folder is None else (folder,):
        if (found := read_json_if_any(place / f'{row.id}.json', {'value': (float, None)}, advice)) is not None:
            return found
    return None


def status(row: Row, found: Mapping[str, Any] | None) -> str:
    """One of STATUSES, from the recorded value and the tolerance."""
    if found is not None:
        return REPRODUCED if row.within(found.get('value')) else GAP
    return NOT_RUN if row.config else NO_RECIPE


def describe(row: Row, folder: pathlib.Path | None = None) -> dict[str, Any]:
    """A row in the form that `genbench baselines` lists and filters."""
    found = evidence(row, folder)
    outdated = records.outdated(row, found)
    return {
        'id': row.id, 'model': row.model, 'paper': row.paper, 'data': row.data, 'metric': row.metric,
        'value': row.value, 'nfe': row.nfe, 'kind': row.kind, 'confirmed': row.confirmed, 'config': row.config,
        'tolerance': row.tolerance, 'status': status(row, found), 'got': None if found is None else found.get('value'),
        'outdated': outdated, 'renewal': records.renewal(row) if outdated else '',
    }  # fmt: skip


def heading(row: Row) -> str:
    """What a row is about, and what is said of it."""
    table = f', table {row.table}' if row.table else ''
    return f'{row.id}: {row.model}, {row.paper}{table}; {row.said}'.rstrip('; ')


def published(row: Row) -> str:
    """The number, its data and how it is known."""
    spread = f' ± {row.sd:g}' if row.sd else ''
    return f'{row.metric} {row.value:g}{spread} on {row.data} ({CONFIRMED[row.confirmed]})'


def details(row: Row, folder: pathlib.Path | None = None) -> Iterator[str]:
    """All that the ledger says of a row in words, a line each."""
    listed = describe(row, folder)
    yield heading(row)
    yield f'expected  {published(row)}'
    yield f'tolerance {row.tolerance:g}: {row.reason}'
    if row.config:
        yield f'recipe    {" ".join((row.config, *row.overrides))}'
    else:
        yield f'lacks     {row.lacks}'
    if row.images:
        yield f'images    {row.images}'
    yield from (f'open      {words}' for words in row.open)
    yield from (f'differs   {words}' for words in row.differs)
    yield ', '.join(filter(None, (listed['status'], listed['outdated'])))


def select(listed: Sequence[Mapping[str, Any]], where: Sequence[str]) -> list[Mapping[str, Any]]:
    """The rows that meet all conditions, written in the language of `genbench results --where`.

    Raises:
      UserError: a key is unknown, or a text is not a condition.
    """
    tests = [_test(listed[0], *condition) for text in where for condition in split(text)]
    return [row for row in listed if all(test(row) for test in tests)]


def _test(example: Mapping[str, Any], key: str, operator: str, text: str) -> Callable[[Mapping[str, Any]], bool]:
    if key not in example:
        raise UserError(f'Baselines have no key {key!r}. {did_you_mean(key, example)}')
    if operator in ('=', '==', '!='):
        quoted = text[0] in '"\''
        choices = [text[1:-1]] if quoted else text.split(',')
        return lambda row: _is_one_of(row[key], choices, quoted) == (operator != '!=')
    number = as_number(text)
    if number is None:
        raise UserError(f'--where {key}{operator}{text}: {text!r} is not a number.')
    compare = {'<': float.__lt__, '<=': float.__le__, '>': float.__gt__, '>=': float.__ge__}[operator]
    return lambda row: isinstance(row[key], int | float) and bool(compare(float(row[key]), number))


def _is_one_of(value: Any, choices: Sequence[str], quoted: bool) -> bool:
    if isinstance(value, int | float):
        return any(as_number(choice) == value for choice in choices)
    word = '' if value is None else str(value)
    return any(word == choice or (not quoted and fnmatch.fnmatchcase(word, choice)) for choice in choices)


def lines(listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per row, then the number of rows with each status."""
    table = [('id', 'data', 'metric', 'published', 'nfe', 'known from', 'got', 'status')]
    for row in listed:
        got = '' if row['got'] is None else f'{row["got"]:.4g}'
        published = f'{row["value"]:g} ± {row["tolerance"]:.2g}'
        known = CONFIRMED[row['confirmed']]
        table.append(
            (row['id'], row['data'], row['metric'], published, str(row['nfe'] or ''), known, got,
             ', '.join(filter(None, (row['status'], row['outdated']))))
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    counts = [f'{sum(row["status"] == name for row in listed)} {name}' for name in STATUSES]
    body = ['  '.join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in table]
    renewals = [f'{row["id"]} was measured by {row["outdated"]}: {row["renewal"]} renews it.' for row in listed
                if row['outdated']]  # fmt: skip
    return [*body, '', *renewals, f'{len(listed)} rows: {", ".join(counts)}. ± is the tolerance.']
