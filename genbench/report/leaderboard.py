"""The leaderboard: one row a trial, at the sampler with the lowest distance, beside held-out real images.

Trials are ranked with those that were measured under the same protocol; each protocol has a table of its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from genbench.evaluation.protocol import Protocol
from genbench.report.collect import StudyRecord
from genbench.report.figures import COLOURS

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its heading, where its numbers come from, and which direction is better."""

    title: str
    metric: str
    form: str
    lower_is_better: bool | None = None
    of_sampler: bool = True


COLUMNS = (
    Column('FID', 'fid', '{:.2f}', True),
    Column('FD', 'fd', '{:.2f}', True),
    Column('KID', 'kid', '{:.4f}', True),
    Column('KD', 'kd', '{:.3f}', True),
    Column('precision', 'precision', '{:.2f}', False),
    Column('recall', 'recall', '{:.2f}', False),
    Column('density', 'density', '{:.2f}', False),
    Column('coverage', 'coverage', '{:.2f}', False),
    Column('two-sample', 'two_sample_accuracy', '{:.2f}', True),
    Column('authenticity', 'authenticity', '{:.2f}'),
    Column('bits/dim', 'bits_per_dim', '{:.3f}', of_sampler=False),
    Column('NFE', 'evaluations_per_image', '{:.0f}'),
    Column('images/s', 'sampling_images_per_second', '{:,.0f}'),
    Column('parameters', 'parameters', '{:,.0f}', of_sampler=False),
    Column('train FLOPs', 'training_flops', '{:.1e}', of_sampler=False),
    Column('train s', 'training_seconds', '{:.0f}', of_sampler=False),
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial on the board: the sampler it is shown with, and its cells."""

    trial: str
    sampler: str | None
    nfe: int | None
    cells: tuple[Row | None, ...]
    protocol: Protocol | None  # of its distance, without what was measured

    @property
    def rank(self) -> float:
        values = [
            row['value'] for row, column in zip(self.cells, COLUMNS, strict=True) if row and column.lower_is_better
        ]
        return values[0] if values else float('inf')


def html(study: StudyRecord, *, across: bool = False) -> str:
    """One table for each protocol; its cells carry their protocol as a tooltip and their number for sorting.

    Args:
      across: rank trials of different protocols in one table, which says so.
    """
    entries = [_entry(study, name) for name in ['real', *(trial.name for trial in study.trials)]]
    entries = [entry for entry in entries if any(entry.cells)]
    groups = _groups(entries)
    if len(groups) < 2:
        return _table(study, entries)
    if across:
        note = (
            f'<p class="warning"><b>Ranked across {len(groups)} protocols, as asked.</b> The numbers were not measured '
            'alike; hover a cell for its protocol.</p>'
        )
        return note + _table(study, entries, across=True)
    first = next(iter(groups))
    return ''.join(
        f'<h3>Protocol {hash_}</h3><p class="quiet">{_told_apart(groups[first], group)}</p>{_table(study, group)}'
        for hash_, group in groups.items()
    )


def _groups(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Trials by the protocol of their distance; those without a distance, and the floor, go with the first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.protocol is not None and entry.trial != 'real':
            groups.setdefault(entry.protocol.hash, []).append(entry)
    loose = [entry for entry in entries if entry.protocol is None or entry.trial == 'real']
    first = next(iter(groups.values()), None)
    if first is None:
        return {'': list(entries)}
    first += loose
    return groups


def _told_apart(first: Sequence[Entry], group: Sequence[Entry]) -> str:
    mine, other = group[0].protocol, first[0].protocol
    if mine is None or other is None or mine == other:
        return 'Not ranked with the tables below: they were measured differently.'
    listed = [f'{key} is {a!r}, not {b!r}' for key, (a, b) in mine.difference(other).items()]
    return 'Measured differently from the first: ' + escape('; '.join(listed[:4])) + '.'


def _entry(study: StudyRecord, trial: str) -> Entry:
    distances = [row for row in study.distances() if row['trial'] == trial]
    best = min(distances, key=lambda row: row['value'], default=None)
    sampler, nfe = (best['sampler'], best['nfe']) if best else (None, None)
    cells = tuple(_row(study, trial, (sampler, nfe), column) for column in COLUMNS)
    return Entry(trial, sampler, nfe, cells, Protocol(best['protocol']).measurement if best else None)


def _row(study: StudyRecord, trial: str, chosen: tuple, column: Column) -> Row | None:
    rows = [row for row in study.select(column.metric) if row['trial'] == trial]
    if column.of_sampler and trial != 'real':
        rows = [row for row in rows if (row['sampler'], row['nfe']) == chosen]
    return min(rows, key=lambda row: row['value']) if rows else None


def _table(study: StudyRecord, entries: Sequence[Entry], *, across: bool = False) -> str:
    entries = sorted(entries, key=lambda entry: entry.rank)
    shown = [index for index in range(len(COLUMNS)) if any(entry.cells[index] for entry in entries)]
    best = {index: _best(COLUMNS[index], [e.cells[index] for e in entries if e.trial != 'real']) for index in shown}
    titles = [*(COLUMNS[index].title for index in shown), *(['protocol'] if across else [])]
    head = ''.join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in titles)
    body = ''.join(_html_row(study, entry, best, across) for entry in entries)
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">model · sampler</th>'
        f'{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _best(column: Column, rows: Sequence[Row | None]) -> Row | None:
    found = [row for row in rows if row is not None]
    if column.lower_is_better is None or not found:
        return None
    return (min if column.lower_is_better else max)(found, key=lambda row: row['value'])


def _html_row(study: StudyRecord, entry: Entry, best: Mapping[int, Row | None], across: bool) -> str:
    if entry.trial == 'real':
        label, kind = 'held-out real images (floor)', ' class="reference"'
    else:
        index = [trial.name for trial in study.trials].index(entry.trial)
        swatch = f'<span class="swatch" style="background:{COLOURS[index % len(COLOURS)]}"></span>'
        sampler = f' <span class="kind">{escape(str(entry.sampler))} · {entry.nfe}</span>' if entry.sampler else ''
        label, kind = swatch + escape(entry.trial) + sampler, ''
    compared = {index: None if entry.trial == 'real' else top for index, top in best.items()}
    shown = ''.join(_cell(entry.cells[index], COLUMNS[index], top) for index, top in compared.items())
    if across:
        hash_ = entry.protocol.hash if entry.protocol else '–'
        shown += f'<td data-value="{hash_}"><code>{hash_}</code></td>'
    return f'<tr{kind}><td>{label}</td>{shown}</tr>'


def _cell(row: Row | None, column: Column, best: Row | None) -> str:
    if row is None:
        return '<td data-value="">–</td>'
    text = column.form.format(row['value'])
    if column.metric == 'bits_per_dim':
        sign = {'lower_bound': '≤ ', 'estimate': '≈ ', 'exact': ''}[row['kind']]
        text = f'{sign}{text}<span class="kind"> ± {row["std_err"]:.3f} {escape(row["kind"].replace("_", " "))}</span>'
    elif row.get('sd') is not None:
        text += f'<span class="kind"> ± {column.form.format(row["sd"])}</span>'
    mark = ' class="best"' if best is not None and _as_good(row, best) else ''
    title = escape('; '.join(f'{key}: {value}' for key, value in row['protocol'].items()), quote=True)
    sets = f'{len(row["values"])} sets of ' if len(row.get('values') or ()) > 1 else ''
    count = f'n: {sets}{row["n"]}; ' if row['n'] else ''
    return f'<td{mark} data-value="{row["value"]}" title="{count}{title}">{text}</td>'


def _as_good(row: Row, best: Row) -> bool:
    """Whether a number is the best, or nearer to it than twice the standard error of their difference."""
    error = ((row.get('std_err') or 0) ** 2 + (best.get('std_err') or 0) ** 2) ** 0.5
    return abs(row['value'] - best['value']) <= 2 * error
