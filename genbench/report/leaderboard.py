"""The leaderboard: one row a trial, at the sampler with the lowest distance, beside held-out real images."""

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

from genbench.report.collect import StudyRecord
from genbench.report.figures import COLOURS


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its heading, where its numbers come from, and which direction is better."""

    title: str
    metric: str
    form: str
    lower_is_better: bool | None
    of_sampler: bool = True


COLUMNS = (
    Column('FD', 'fd', '{:.2f}', True),
    Column('KD', 'kd', '{:.3f}', True),
    Column('precision', 'precision', '{:.2f}', False),
    Column('recall', 'recall', '{:.2f}', False),
    Column('bits/dim', 'bits_per_dim', '{:.3f}', None, of_sampler=False),
    Column('NFE', 'evaluations_per_image', '{:.0f}', None),
    Column('images/s', 'sampling_images_per_second', '{:,.0f}', None),
    Column('parameters', 'parameters', '{:,.0f}', None, of_sampler=False),
    Column('train FLOPs', 'training_flops', '{:.1e}', None, of_sampler=False),
    Column('train s', 'training_seconds', '{:.0f}', None, of_sampler=False),
)


def html(study: StudyRecord) -> str:
    """The table; its cells carry their protocol as a tooltip and their number for sorting."""
    chosen = {name: _best_sampler(study, name) for name in ['real', *(trial.name for trial in study.trials)]}
    names = [name for name in chosen if any(row['trial'] == name for row in study.rows)]
    names.sort(key=lambda name: _sort_value(study, name, chosen[name]))
    cells = {name: [_row(study, name, chosen[name], column) for column in COLUMNS] for name in names}
    best = [_best(column, [cells[name][i] for name in names if name != 'real']) for i, column in enumerate(COLUMNS)]
    head = ''.join(f'<th scope="col"><button type="button">{escape(column.title)}</button></th>' for column in COLUMNS)
    body = ''.join(_html_row(study, name, chosen[name], cells[name], best) for name in names)
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">model · sampler</th>'
        f'{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _best_sampler(study: StudyRecord, trial: str) -> tuple[str | None, int | None]:
    rows = [row for row in study.select('fd') if row['trial'] == trial]
    if not rows:
        return None, None
    best = min(rows, key=lambda row: row['value'])
    return best['sampler'], best['nfe']


def _sort_value(study: StudyRecord, trial: str, chosen: tuple) -> float:
    row = _row(study, trial, chosen, COLUMNS[0])
    return row['value'] if row else float('inf')


def _row(study: StudyRecord, trial: str, chosen: tuple, column: Column) -> dict[str, Any] | None:
    rows = [row for row in study.select(column.metric) if row['trial'] == trial]
    if column.of_sampler and trial != 'real':
        rows = [row for row in rows if (row['sampler'], row['nfe']) == chosen]
    return min(rows, key=lambda row: row['value']) if rows else None


def _best(column: Column, rows: Sequence[dict[str, Any] | None]) -> float | None:
    values = [row['value'] for row in rows if row is not None]
    if column.lower_is_better is None or not values:
        return None
    return min(values) if column.lower_is_better else max(values)


def _html_row(
    study: StudyRecord, name: str, chosen: tuple, cells: Sequence[dict[str, Any] | None], best: Sequence[float | None]
) -> str:
    if name == 'real':
        label, kind = 'held-out real images (floor)', ' class="reference"'
    else:
        index = [trial.name for trial in study.trials].index(name)
        swatch = f'<span class="swatch" style="background:{COLOURS[index % len(COLOURS)]}"></span>'
        sampler = f' <span class="kind">{escape(str(chosen[0]))} · {chosen[1]}</span>' if chosen[0] else ''
        label, kind = swatch + escape(name) + sampler, ''
    shown = ''.join(_cell(row, column, top) for row, column, top in zip(cells, COLUMNS, best, strict=True))
    return f'<tr{kind}><td>{label}</td>{shown}</tr>'


def _cell(row: dict[str, Any] | None, column: Column, best: float | None) -> str:
    if row is None:
        return '<td data-value="">–</td>'
    text = column.form.format(row['value'])
    if column.metric == 'bits_per_dim':
        sign = {'lower_bound': '≤ ', 'estimate': '≈ ', 'exact': ''}[row['kind']]
        text = f'{sign}{text}<span class="kind"> ± {row["std_err"]:.3f} {escape(row["kind"].replace("_", " "))}</span>'
    mark = ' class="best"' if row['value'] == best else ''
    title = escape('; '.join(f'{key}: {value}' for key, value in row['protocol'].items()), quote=True)
    count = f'n: {row["n"]}; ' if row['n'] else ''
    return f'<td{mark} data-value="{row["value"]}" title="{count}{title}">{text}</td>'
