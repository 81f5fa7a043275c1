"""Tables of results: mean and standard deviation over seeds, and paired differences from a baseline."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from genbench.errors import UserError, did_you_mean
from genbench.evaluation import statistics
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.results import BOUNDS
from genbench.evaluation.statistics import Replicate
from genbench.studies.conditions import Condition, Key, Keys, parse
from genbench.studies.index import Index, leaves

# Higher is better for these metrics, and lower for all others.
_HIGHER = ('precision', 'recall', 'density', 'coverage', 'inception_score', 'sampling_images_per_second')
ROWS = ('variant', 'metric', 'kind', 'sampler', 'nfe')  # the row keys of a table without a pivot
# What else distinguishes numbers, which a table then never averages, in the order of its labels.
_APART = ('sampler', 'steps', 'method', 'guidance', 'sampler_options', 'average')
# What `statistics.replicate` reads from a row besides its value and kind.
_NOISE = (
    "{'std_err': std_err, 'sd': sd, 'n': n, 'values': \"values\", 'train_seed': seed, 'protocol': {'seed': "
    "json_extract_string(protocol, '$.seed'), 'noise': json_extract_string(protocol, '$.noise'), "
    "'reference': {'half_seed': json_extract_string(protocol, '$.reference.half_seed')}, "
    "'held_out': {'half_seed': json_extract_string(protocol, '$.held_out.half_seed')}}}"
)
_GROUP = ('folder', 'dataset', 'split', 'variant', 'metric', 'kind', 'checkpoint', 'measured')


@dataclasses.dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over n seeds. With a baseline, the mean difference over `pairs` common seeds.

    `sd` includes noise that the seeds share (see `statistics`), `sd_seeds` only what varies between seeds. With one
    seed, `sd` is the deviation over its sets of samples, or the standard error over its images. Unknown values are
    None: a deviation between seeds if there is only one, an interval from one pair, and everything if there is no
    number.
    """

    mean: float | None
    sd: float | None
    n: int
    sd_seeds: float | None = None
    difference: float | None = None
    low: float | None = None  # ends of the 95 % interval of the difference
    high: float | None = None
    pairs: int = 0
    against: str = ''  # the baseline's sampler, if it differs


@dataclasses.dataclass(frozen=True)
class Table:
    """Lines of labels and cells.

    Attributes:
      keys: what the labels are.
      columns: names of the cells.
      lines: (labels, {column: cell}).
      notes: what a reader needs to know.
      compared: whether cells hold differences.
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[tuple[tuple[str, ...], Mapping[str, Cell]], ...]
    notes: tuple[str, ...]
    compared: bool = False


@dataclasses.dataclass
class _Group:
    """Rows that differ only in their seed."""

    labels: tuple[str, ...]
    column: str
    group: tuple[Any, ...]  # values of the keys in _GROUP
    protocol: str  # JSON
    cell: Cell
    missing: int
    estimate: statistics.Estimate | None
    label: str = ''

    @functools.cached_property
    def apart(self) -> dict[str, Any]:
        """Everything that distinguishes it from other groups."""
        values = json.loads(self.protocol)
        return {
            **dict(zip(_GROUP, self.group, strict=True)),
            **dict(leaves(values) if isinstance(values, dict) else ()),
        }


def build(
    places: Sequence[str],
    *,
    where: Sequence[str] = (),
    metrics: Sequence[str] = (),
    pivot: str = '',
    baseline: str = '',
    across: bool = False,
) -> Table:
    """Build the table of the rows of some studies and runs.

    Rows are averaged over seeds only. Rows that differ in folder, dataset, split, variant, kind, checkpoint or protocol
    get separate lines. Teachers may differ, because each seed may have its own.

    Args:
      where: conditions; see `conditions.parse`.
      metrics: the metrics to show, in this order; all by default.
      pivot: 'ROWS:COLUMNS', keys joined by commas. Without columns, the metric.
      baseline: the variant with which the others are compared, by seed and under the same protocol.
      across: also compare numbers with the same metric, kind and sampler but another protocol.

    Raises:
      UserError: a key, variant or metric is unknown, or nothing matches.
    """
    index = Index(places, settings='settings.' in f'{where} {pivot}')
    keys = Keys(index)
    rows, columns = _pivot(pivot, keys)
    wanted = parse(where, keys)
    _check_metrics(index, wanted, metrics)
    if metrics:
        wanted = Condition(f'({wanted.sql}) AND list_contains(?, metric)', (*wanted.parameters, list(metrics)))
    _collect(index, wanted, [*rows, *columns], across)
    differences = _differences(index, baseline, across) if baseline else {}
    groups = _groups(index, len(rows), len(columns), differences)
    if not groups:
        raise UserError('No row matches --where; genbench results without it lists all rows.')
    notes = _tell_apart(groups)
    if baseline:
        alike = 'metric, kind and sampler, across protocols' if across else 'protocol'
        notes.append(f'Differences are from {baseline}, paired by seed with the same {alike}, with 95 % t intervals; '
                     'those of likelihoods cover training, for these test images.')  # fmt: skip
        if any(found[1] for found in differences.values()):
            notes.append(f'If {baseline} lacks a sampler, "to" names its best by that metric, used instead.')
        without = {group.group[_GROUP.index('metric')] for group in groups if group.cell.n
                   and group.group not in differences and group.group[_GROUP.index('variant')] != baseline
                   and group.group[_GROUP.index('variant')] not in BOUNDS}  # fmt: skip
        if without:
            notes.append(f'No difference: {baseline} was not measured the same way: {", ".join(sorted(without))}.')
    notes += _held(groups)
    missing = sum(group.missing for group in groups)
    if missing:
        notes.append(f'{missing} values are not numbers and were excluded.')
    named = tuple(key.name for key in rows) + (('measured',) if any(group.label for group in groups) else ())
    order = _column_order(groups, metrics)
    return Table(named, order, _lines(groups, 'measured' in named), tuple(notes), bool(baseline))


def _pivot(text: str, keys: Keys) -> tuple[list[Key], list[Key]]:
    if not text:
        return [keys.get(name) for name in ROWS], []
    rows, _, columns = text.partition(':')
    names = [[part.strip() for part in side.split(',') if part.strip()] for side in (rows, columns or 'metric')]
    if not names[0]:
        raise UserError(f'--pivot is {text!r}; write ROWS:COLUMNS, for example variant,sampler:metric.')
    return [keys.get(name) for name in names[0]], [keys.get(name) for name in names[1]]


def _check_metrics(index: Index, wanted: Condition, metrics: Sequence[str]) -> None:
    known = [name for (name,) in index.query(f'SELECT DISTINCT metric FROM entries WHERE {wanted.sql}',
                                             wanted.parameters)]  # fmt: skip
    for name in metrics:
        if name not in known:
            raise UserError(f'No row has the metric {name!r}. {did_you_mean(name, known)}')


def _collect(index: Index, wanted: Condition, pivots: Sequence[Key], across: bool) -> None:
    """Create the table `ones`: one value for each group and seed, the last one written."""
    shown = ''.join(
        f", coalesce(regexp_replace({key.sql}::VARCHAR, '\\.0$', ''), '–') AS p{i}" for i, key in enumerate(pivots)
    )
    names = ''.join(f', p{i}' for i in range(len(pivots)))
    paths = "['$.sampler', '$.steps', '$.guidance', '$.sampler_options', '$.method']"
    loosely = f"array_to_string(json_extract_string(protocol, {paths}), ' ')" if across else 'NULL'
    index.query(
        f"""
        CREATE TEMP TABLE ones AS
        WITH chosen AS (
            SELECT folder, coalesce(dataset, '') AS dataset, coalesce(split, '') AS split, variant, metric,
                coalesce(kind, '') AS kind, position, protocol, seed, CASE WHEN isfinite(value) THEN value END AS value,
                -- the last checkpoint of a run stands beside the last of another
                CASE WHEN checkpoint_step = max(checkpoint_step) OVER (PARTITION BY file, trial) THEN -1
                    ELSE coalesce(checkpoint_step, -1) END AS checkpoint,
                coalesce(seed::VARCHAR, trial, file) AS replicate,
                -- a distilled run has the teacher of its own seed
                CASE WHEN coalesce(json_extract_string(protocol, '$.borrowed'), '{{}}') = '{{}}'
                    THEN coalesce(protocol_hash, md5(protocol::VARCHAR), '')
                    ELSE md5(json_merge_patch(protocol, '{{"borrowed": null}}')::VARCHAR) END AS measured,
                {loosely} AS loosely,
                {_NOISE} AS noise
                {shown}
            FROM entries WHERE {wanted.sql}
        )
        SELECT {', '.join(_GROUP)}{names}, replicate, loosely, any_value(seed) AS seed, any_value(protocol) AS protocol,
            arg_max(value, position) AS value, arg_max(noise, position) AS noise, min(position) AS position
        FROM chosen GROUP BY {', '.join(_GROUP)}{names}, replicate, loosely
        """,
        [*(value for key in pivots for value in key.parameters), *wanted.parameters],
    )


def _differences(index: Index, baseline: str, across: bool) -> dict[tuple[Any, ...], tuple[statistics.Estimate, str]]:
    """{group: (its differences from the baseline's numbers with the same seeds, the baseline's sampler or '')}.

    If the baseline has a number that was measured and sampled alike, the comparison uses it, with ''. Otherwise it uses
    numbers that were measured alike, with the baseline's best sampler by this metric.
    """
    known = [name for (name,) in index.query('SELECT DISTINCT variant FROM ones WHERE variant IS NOT NULL')]
    if baseline not in known:
        raise UserError(f'--baseline {baseline!r} has no rows in this selection. {did_you_mean(baseline, known)}')
    names = ', '.join(_GROUP)
    found = index.query(f'SELECT {names}, any_value(protocol)::VARCHAR, any_value(loosely), list(seed), list(value), '
                        f'list(noise) FROM ones WHERE value IS NOT NULL AND seed IS NOT NULL '
                        f'GROUP BY {names}')  # fmt: skip
    sides = [_Side.of(row) for row in found]
    theirs = [side for side in sides if side.group['variant'] == baseline]
    differences = {}
    for side in sides:
        match = _match(side, theirs, across) if side.group['variant'] != baseline else None
        difference = statistics.paired(side.by_seed, match[0].by_seed) if match else None
        if match is not None and difference is not None:
            differences[tuple(side.group.values())] = difference, match[1]
    return differences


@dataclasses.dataclass(frozen=True)
class _Side:
    """The numbers of a group by seed, with what decides which others they may be compared with."""

    group: dict[str, Any]  # values of the keys in _GROUP
    protocol: dict[str, Any]
    loosely: str | None
    by_seed: dict[Any, Replicate]

    @classmethod
    def of(cls, row: Sequence[Any]) -> '_Side':
        group, (protocol, loosely, seeds, values, noises) = row[: len(_GROUP)], row[len(_GROUP) :]
        replicates = dict(zip(seeds, _replicates(group, values, noises), strict=True))
        return cls(dict(zip(_GROUP, group, strict=True)), json.loads(protocol or '{}'), loosely, replicates)

    @functools.cached_property
    def place(self) -> tuple[Any, ...]:
        return tuple(value for key, value in self.group.items() if key not in ('variant', 'measured'))

    @functools.cached_property
    def measurement(self) -> str:
        return Protocol(self.protocol).measurement.hash

    @property
    def mean(self) -> float:
        return fmean(one.value for one in self.by_seed.values())

    @property
    def sampler(self) -> str:
        return ' '.join(str(self.protocol[key]) for key in ('sampler', 'steps', 'method') if self.protocol.get(key))


def _match(side: _Side, theirs: Sequence[_Side], across: bool) -> tuple[_Side, str] | None:
    beside = [one for one in theirs if one.place == side.place]
    for one in beside:
        if one.loosely == side.loosely if across else one.group['measured'] == side.group['measured']:
            return one, ''
    alike = [one for one in beside if one.measurement == side.measurement]
    if not alike:
        return None
    best = (max if side.group['metric'] in _HIGHER else min)(alike, key=lambda one: one.mean)
    return best, best.sampler


def _replicates(group: Sequence[Any], values: Sequence[float | None], noises: Sequence[Any]) -> list[Replicate]:
    """What `statistics` needs to know about the rows of a group that hold a number."""
    kind = group[_GROUP.index('kind')]
    return [
        statistics.replicate({'value': value, 'kind': kind, 'protocol': {}, **noise})
        for value, noise in zip(values, noises, strict=True)
        if value is not None
    ]


def _groups(index: Index, rows: int, columns: int, differences: Mapping[Any, Any]) -> list[_Group]:
    pivots = [f'p{i}' for i in range(rows + columns)]
    by = ', '.join([*_GROUP, *pivots])
    found = index.query(
        f'SELECT {by}, list(value), list(noise), any_value(protocol)::VARCHAR FROM ones '
        f'GROUP BY {by} ORDER BY min(position)'
    )
    groups = []
    for row in found:
        group, labels, (values, noises, protocol) = row[: len(_GROUP)], row[len(_GROUP) : -3], row[-3:]
        replicates = _replicates(group, values, noises)
        estimate = statistics.over_seeds(replicates) if replicates else None
        cell, missing = _cell(estimate, differences.get(group)), len(values) - len(replicates)
        column = ' '.join(labels[rows:]) or 'value'
        groups.append(_Group(labels[:rows], column, group, protocol or '{}', cell, missing, estimate))
    return groups


def _cell(estimate: statistics.Estimate | None, found: tuple[statistics.Estimate, str] | None) -> Cell:
    if estimate is None:
        return Cell(None, None, 0)
    cell = Cell(estimate.mean, estimate.sd or None, estimate.n, estimate.sd_seeds)
    if found is None:
        return cell
    difference, against = found
    low, high = difference.interval() or (None, None)
    return dataclasses.replace(
        cell, difference=difference.mean, low=low, high=high, pairs=difference.n, against=against
    )


# What ± includes besides the spread over seeds ('shared'), and what it excludes ('missing').
_HELD = (
    ('shared', statistics.IMAGES, '± of likelihoods includes the error over test images, which all seeds share.'),
    ('shared', statistics.SAMPLING,
     '± includes the sampling noise that seeds share if all were sampled with the same keys.'),
    ('shared', statistics.HALVES,
     '± of scores against held-out images includes the choice of halves, which all seeds share.'),
    ('missing', statistics.SAMPLING,
     '± excludes the sampling noise if all seeds were sampled once with the same keys.'),
    ('missing', statistics.HALVES,
     '± excludes the choice of the reference half if all seeds were scored once against the same one.'),
    ('missing', statistics.OTHERS,
     '± of scores against held-out images excludes the effect of another held-out split.'),
)  # fmt: skip


def _held(groups: Sequence[_Group]) -> list[str]:
    """The notes in `_HELD` that apply to these groups."""
    found = [group.estimate for group in groups if group.estimate is not None and group.estimate.n > 1]
    return [note for where, source, note in _HELD if any(source in getattr(one, where) for one in found)]


def _tell_apart(groups: Sequence[_Group]) -> list[str]:
    """Label groups that would share a cell by what distinguishes them. Returns notes that say so."""
    cells: dict[tuple[Any, ...], list[_Group]] = {}
    for group in groups:
        cells.setdefault((group.labels, group.column), []).append(group)
    crowded = [shared for shared in cells.values() if len(shared) > 1]
    for shared in crowded:
        names = dict.fromkeys([*_APART, *(name for group in shared for name in group.apart)])
        chosen: list[str] = []
        for name in names:
            if name != 'measured' and len(_values(shared, [*chosen, name])) > len(_values(shared, chosen)):
                chosen.append(name)
        if len(_values(shared, chosen)) < len(shared):
            chosen.append('measured')
        for group in shared:
            group.label = ' '.join(f'{name}={_short(group.apart[name])}' for name in chosen if name in group.apart)
    return ['Numbers measured differently are not averaged; the column "measured" shows the difference.'] * bool(
        crowded
    )


def _values(shared: Sequence[_Group], names: Sequence[str]) -> set[str]:
    return {json.dumps([group.apart.get(name) for name in names]) for group in shared}


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _column_order(groups: Sequence[_Group], metrics: Sequence[str]) -> tuple[str, ...]:
    """In the order of --metric, else numerically if all are numbers, else in order of appearance."""
    names = list(dict.fromkeys(group.column for group in groups))
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names, key=lambda name: metrics.index(name) if name in metrics else len(metrics)))


def _lines(groups: Sequence[_Group], labelled: bool) -> tuple[tuple[tuple[str, ...], Mapping[str, Cell]], ...]:
    """The lines of the table. A line without numbers is dropped if others have the same labels."""
    lines: dict[tuple[str, ...], dict[str, Cell]] = {}
    for group in groups:
        labels = (*group.labels, group.label) if labelled else group.labels
        lines.setdefault(labels, {})[group.column] = group.cell
    told = {labels[:-1] for labels, cells in lines.items() if labelled and any(cell.n for cell in cells.values())}
    return tuple(
        (labels, cells)
        for labels, cells in lines.items()
        if labels[:-1] not in told or any(c.n for c in cells.values())
    )
