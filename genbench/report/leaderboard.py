"""The leaderboard: one row per variant, with its lowest-distance sampler, and rows of real images as bounds.

Variants are ranked only with those measured under the same protocol. Each protocol has a table of its own.
"""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from html import escape
from typing import Any

from genbench.evaluation import statistics
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.results import BOUNDS, COPIES, HELD_OUT
from genbench.report import cells, comparisons
from genbench.report.cells import LIKELIHOOD, METRICS, TIMED, Cell, Metric, Way
from genbench.report.collect import StudyRecord
from genbench.report.marks import swatch

_SIGNS = {'lower_bound': '≤ ', 'estimate': '≈ '}
_CHOICE = {HELD_OUT: 'random halves of this split', COPIES: 'draws of training images'}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A variant on the leaderboard: the sampler it is shown with, and its cells by metric."""

    variant: str
    way: Way | None
    cells: Mapping[str, Cell]
    protocol: Protocol | None  # how its distance was measured
    seeds: int
    note: str = ''  # why cells are empty

    @property
    def rank(self) -> float:
        ranked = [cell.value for cell in self.cells.values() if cell.metric.lower_is_better]
        return ranked[0] if ranked else float('inf')


class Tips:
    """The texts of cell tooltips, each stored once. The page shows them on hover and focus."""

    def __init__(self) -> None:
        self.texts: list[dict[str, Any]] = []
        self.protocols: dict[str, dict[str, Any]] = {}

    def add(self, cell: Cell) -> int:
        protocol = Protocol(cell.protocol)
        shown = {key: str(value) for key, value in protocol.flatten().items() if value not in ({}, None)}
        self.protocols.setdefault(protocol.hash, shown)
        row, facts = cell.rows[0], {}
        if cell.seeds > 1:
            facts['over seeds'] = f'n = {cell.seeds}: {_listed(cell)}'
        facts.update(_error(cell))
        for lender, value in (row.get('lent') or {}).items():
            facts[f'with {lender}'] = 'unknown' if value is None else cell.metric.form.format(value)
        if row['n']:
            drawn = 'random ' if cell.variant in BOUNDS else 'disjoint '  # sets of real images overlap
            sets = f'{len(row["values"])} {drawn}sets of ' if len(row['values'] or ()) > 1 else ''
            facts['images'] = f'{sets}{row["n"]}'
        self.texts.append({'title': f'{cell.variant} · {cell.metric.title}', 'facts': facts, 'protocol': protocol.hash})
        return len(self.texts) - 1


def _listed(cell: Cell) -> str:
    return ', '.join(
        f'{cell.metric.form.format(one.value)}{"" if seed is None else f" (seed {seed})"}'
        for seed, one in cell.by_seed.items()
    )


def _error(cell: Cell) -> dict[str, str]:
    """What ± includes and leaves out, and the interval of the mean. Real images have none, as their sets overlap."""
    found, shown = cell.estimate, cell.metric.form.format
    told = _joined(_called(cell.variant, found.varied))
    if found.sd_seeds is not None and found.sd != found.sd_seeds:
        told += f'; over seeds alone ± {shown(found.sd_seeds)}'
    other_images = (statistics.OTHERS,) if cell.variant == HELD_OUT else ()
    left = _called(cell.variant, (*found.missing, *other_images))
    interval = None if cell.variant in BOUNDS else found.interval()
    facts = {
        '± includes': told,
        '± excludes' if found.varied else 'unknown variation': _joined(left),
        '95% interval of the mean': '' if interval is None else f'{shown(interval[0])} to {shown(interval[1])}',
    }
    return {name: text for name, text in facts.items() if text}


def _called(variant: str, sources: Sequence[str]) -> list[str]:
    """Sources of noise as a cell names them. Real images were chosen, not trained."""
    if variant not in BOUNDS:
        return list(sources)
    names = {statistics.TRAINING: '', statistics.SAMPLING: _CHOICE[variant], statistics.HALVES: _CHOICE[HELD_OUT]}
    return list(dict.fromkeys(filter(None, (names.get(source, source) for source in sources))))


def _joined(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return ' and '.join(filter(None, (', '.join(names[:-1]), *names[-1:])))


def entries(study: StudyRecord) -> list[Entry]:
    """One row for each variant that has a number."""
    found = [_entry(study, variant.name) for variant in study.variants]
    return [entry for entry in found if entry.cells]


def bounds(study: StudyRecord, beside: Sequence[Cell]) -> list[Entry]:
    """Rows of real images, only with numbers that were measured in the same way as a cell in the same table."""
    alike = {(cell.metric.name, cell.comparable) for cell in beside}
    found = []
    for name in BOUNDS:
        own = [cell for metric in METRICS for cell in cells.of(study, metric.name) if cell.variant == name]
        shown = {cell.metric.name: cell for cell in own if (cell.metric.name, cell.comparable) in alike}
        note = _too_few(study, name, alike)
        found += [Entry(name, None, shown, None, 1, note)] if shown or note else []
    return found


def _too_few(study: StudyRecord, bound: str, alike: Set[tuple[str, str]]) -> str:
    """Which metrics a bound lacks because there are too few images, and the number of images that would be enough."""
    metrics: dict[int, list[str]] = {}
    for row in study.rows:
        most = (row.get('details') or {}).get('images_at_most')
        if row['trial'] != bound or row['value'] is not None or not isinstance(most, int):
            continue
        if (row['metric'], cells.comparable(row['protocol'])) in alike:
            metrics.setdefault(most, []).append(cells.BY_NAME[row['metric']].title)
    return '; '.join(
        f'too few images for {", ".join(dict.fromkeys(titles))}: set evaluation.num_samples to at most {most}'
        for most, titles in metrics.items()
    )


def html(study: StudyRecord, tips: Tips, *, across: bool = False) -> str:
    """One table for each protocol. Its cells carry their number for sorting and the index of their tooltip.

    Args:
      across: rank variants of different protocols in one table, with a note that says so.
    """
    found = entries(study)
    groups = {hash_: _with_bounds(study, group) for hash_, group in _groups(found).items()}
    if len(groups) < 2:
        return _table(study, next(iter(groups.values())), tips)
    if across:
        note = (
            f'<p class="warning"><b>Ranked across {len(groups)} protocols, as requested.</b> The numbers were not '
            'measured the same way; each cell shows its protocol.</p>'
        )
        return note + _table(study, _with_bounds(study, found), tips, across=True)
    first = next(iter(groups))
    return ''.join(
        f'<h3>Protocol {hash_}</h3><p class="quiet">{_told_apart(groups[first], group)}</p>{_table(study, group, tips)}'
        for hash_, group in groups.items()
    )


def _groups(found: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries by the protocol of their distance. Those without a distance join the first protocol."""
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        if entry.protocol is not None:
            groups.setdefault(entry.protocol.hash, []).append(entry)
    loose = [entry for entry in found if entry.protocol is None]
    first = next(iter(groups.values()), None)
    if first is None:
        return {'': list(found)}
    first += loose
    return groups


def _with_bounds(study: StudyRecord, group: Sequence[Entry]) -> list[Entry]:
    return [*group, *bounds(study, [cell for entry in group for cell in entry.cells.values()])]


def _told_apart(first: Sequence[Entry], group: Sequence[Entry]) -> str:
    mine, other = group[0].protocol, first[0].protocol
    if mine is None or other is None or mine == other:
        return 'Not ranked with the tables below, which were measured differently.'
    listed = [f'{key} is {a!r}, not {b!r}' for key, (a, b) in mine.difference(other).items()]
    return 'Differs from the first protocol: ' + escape('; '.join(listed[:4])) + '.'


def _entry(study: StudyRecord, variant: str) -> Entry:
    top = cells.best([cell for cell in cells.of(study, study.main_metric) if cell.variant == variant])
    way = top.way if top else None
    ways = {'samples': way, 'restored': _restored(study, variant)}
    chosen = {metric.name: _chosen(study, variant, ways[metric.group], metric) for metric in METRICS}
    trials = [trial for one in study.variants if one.name == variant for trial in one.trials]
    shown = {name: cell for name, cell in chosen.items() if cell is not None}
    if top is not None:
        shown[study.main_metric] = top
    protocol = top.measurement if top else None
    seeds = max((cell.seeds for cell in shown.values()), default=len(trials))
    return Entry(variant, way or ways['restored'], shown, protocol, seeds)


def _restored(study: StudyRecord, variant: str) -> Way | None:
    """How the restorations were drawn that are best by the first of their metrics that was measured."""
    restored = [metric for metric in METRICS if metric.group == 'restored']
    found = ([cell for cell in cells.of(study, metric.name) if cell.variant == variant] for metric in restored)
    best = cells.best(next(filter(None, found), []))
    return best.way if best else None


def _chosen(study: StudyRecord, variant: str, way: Way | None, metric: Metric) -> Cell | None:
    found = [cell for cell in cells.of(study, metric.name) if cell.variant == variant]
    if metric.of_sampler:
        found = [cell for cell in found if way is not None and cell.way.fits(way)]
    return cells.best(found)


def _table(study: StudyRecord, found: Sequence[Entry], tips: Tips, *, across: bool = False) -> str:
    found = sorted(found, key=lambda entry: entry.rank)
    shown = [metric for metric in METRICS if any(metric.name in entry.cells for entry in found)]
    best = {name: mark for metric in shown for name, mark in _leads(metric, found).items()}
    titles = [*(metric.title for metric in shown), *(['protocol'] if across else [])]
    head = ''.join(f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in titles)
    body = ''.join(_html_row(study, entry, shown, best, tips, across) for entry in found)
    hashes = sorted({entry.protocol.hash for entry in found if entry.protocol is not None})
    label = ', protocol '.join(['Leaderboard table', *hashes[:1]])
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="board">'
        '<caption class="hidden">Leaderboard: arrow keys move between cells, and each cell shows its protocol</caption>'
        f'<thead><tr><th scope="col"><button type="button">model · sampler</button></th>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>'
    )


def _leads(metric: Metric, found: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """'best' for a number told apart from all others, else 'tied' for those not told apart from the lowest.

    Differences are corrected for the number of pairs. If they decide nothing, nothing is marked.
    """
    models = [e.cells[metric.name] for e in found if e.variant not in BOUNDS and metric.name in e.cells]
    if metric.lower_is_better is None or len(models) < 2:
        return {}
    pairs = comparisons.pairs(models)
    if not any(pair.decided for pair in pairs):
        return {}
    first = (min if metric.lower_is_better else max)(models, key=lambda cell: cell.value)
    tied = [cell for cell in models if cell is first or not comparisons.apart(cell, first, pairs)]
    return {(cell.variant, metric.name): 'best' if len(tied) == 1 else 'tied' for cell in tied}


def _html_row(
    study: StudyRecord, entry: Entry, shown: Sequence[Metric], best: Mapping[tuple[str, str], str], tips: Tips,
    across: bool,
) -> str:  # fmt: skip
    kind = ' class="reference"' if entry.variant in BOUNDS else ''
    body = ''.join(_cell(entry.cells.get(m.name), best.get((entry.variant, m.name), ''), tips) for m in shown)
    if across:
        hash_ = entry.protocol.hash if entry.protocol else '–'
        body += f'<td data-value="{hash_}"><code>{hash_}</code></td>'
    name = escape(entry.variant, quote=True)
    return f'<tr{kind}><th scope="row" data-value="{name}">{_label(study, entry)}</th>{body}</tr>'


def _label(study: StudyRecord, entry: Entry) -> str:
    if entry.variant in BOUNDS:
        return escape(entry.variant) + (f'<span class="kind">{escape(entry.note)}</span>' if entry.note else '')
    variant = next(one for one in study.variants if one.name == entry.variant)
    told = [entry.way.label] if entry.way and entry.way.label else []
    if len(variant.trials) > 1:
        told.append(f'{entry.seeds} of {len(variant.trials)} seeds' if entry.seeds < len(variant.trials)
                    else f'{entry.seeds} seeds')  # fmt: skip
    warning = ''
    if cells.degenerate(entry.cells.get('precision'), entry.cells.get('recall')):
        warning = '<span class="kind warn">⚠ precision without recall: samples cover almost none of the data</span>'
    way = f'<span class="kind">{escape(" · ".join(told))}</span>'
    return f'{swatch(variant.index)}{escape(entry.variant)}{way}{warning}'


def _range(cell: Cell) -> str:
    """The range over seeds of seconds and speeds, which vary with other work on the machine; '' for other numbers."""
    if cell.metric.name not in TIMED or cell.seeds < 2:
        return ''
    values = [cell.metric.form.format(row['value']) for row in sorted(cell.rows, key=lambda row: row['value'])]
    return f' {values[0]} to {values[-1]}' if values[0] != values[-1] else ''


def _cell(cell: Cell | None, lead: str, tips: Tips) -> str:
    if cell is None:
        return '<td data-value="">–</td>'
    form, row = cell.metric.form, cell.rows[0]
    text = form.format(cell.value)
    sd = cell.estimate.sd
    known = sd is not None and row['kind'] != 'cost'  # the tooltip has the cost of each seed
    if cell.seeds == 1 and form.format(sd or 0) == form.format(0):
        known = False  # equal sets of samples do not show how much training runs differ
    note = f' ± {form.format(sd)}' if known else _range(cell)
    if cell.metric.name == LIKELIHOOD:
        text = _SIGNS.get(row['kind'], '') + text
    mark = f' class="{lead}"' if lead else ''
    told = f'<span class="kind">{escape(note)}</span>' if note else ''
    if cell.metric.name == LIKELIHOOD:
        told += f'<span class="kind sort">{escape(row["kind"].replace("_", " "))}</span>'
    if row.get('lent'):
        told += f'<span class="kind sort">with {escape(", ".join(row["lent"]))}</span>'
    return f'<td{mark} data-value="{cell.value}" data-tip="{tips.add(cell)}" tabindex="-1">{text}{told}</td>'
