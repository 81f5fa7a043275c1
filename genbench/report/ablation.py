"""Compare every variant with the study's baseline: differences paired over seeds, with intervals."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from genbench import config as configs
from genbench.evaluation import statistics
from genbench.report import cells, leaderboard
from genbench.report.cells import BY_NAME, LIKELIHOOD, Cell
from genbench.report.collect import StudyRecord, Variant
from genbench.report.marks import swatch

COLUMNS = ('fid', 'fd', 'kid', 'kd', 'precision', 'recall', 'density', 'coverage', LIKELIHOOD, 'training_seconds')
_OWN = ('train.seed', 'data.data_dir', 'evaluation', 'checkpoint', 'mesh', 'train.log_every', 'train.sample_every')
SETTINGS_SHOWN = 3


def html(study: StudyRecord) -> str:
    """The table; '' if the study has no baseline, or no number for it."""
    entries = {entry.variant: entry for entry in leaderboard.entries(study)}
    base = next((variant for variant in study.variants if variant.name == study.baseline), None)
    if base is None or base.name not in entries:
        return ''
    reference = entries[base.name].cells
    shown = [name for name in COLUMNS if name in reference]
    head = ''.join(f'<th scope="col">{escape(BY_NAME[name].title)}</th>' for name in shown)
    rows = [_row(study, base, reference, variant, entries[variant.name], shown)
            for variant in study.variants if variant is not base and variant.name in entries]  # fmt: skip
    own = ''.join(_absolute(reference[name]) for name in shown)
    name = f'{swatch(base.index)}{escape(base.name)} (baseline){_way(entries[base.name])}'
    first = f'<tr class="reference"><th scope="row">{name}</th><td></td>{own}</tr>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Ablations"><table class="ablation"><thead><tr>'
        f'<th scope="col">variant</th><th scope="col" class="words">differs in</th>{head}</tr></thead>'
        f'<tbody>{first}{"".join(rows)}</tbody></table></div>'
    )


def _row(
    study: StudyRecord, base: Variant, reference: Mapping[str, Cell], variant: Variant, entry: leaderboard.Entry, shown
) -> str:
    body = ''.join(
        _difference(_comparable(study, variant, reference[name], entry.cells.get(name)), reference[name])
        or _dash(entry.cells.get(name), reference[name])
        for name in shown
    )
    changed = settings_against(base, variant)
    told = _told([f'{key} = {value}' for key, value in changed.items() if value is not None])
    name = f'{swatch(variant.index)}{escape(variant.name)}{_way(entry)}'
    return f'<tr><th scope="row">{name}</th><td class="words">{told}</td>{body}</tr>'


def _told(settings: Sequence[str]) -> str:
    """All settings; if there are many, the first one and a list to open."""
    if len(settings) <= SETTINGS_SHOWN:
        return escape(', '.join(settings))
    listed = ''.join(f'<li>{escape(text)}</li>' for text in settings)
    return (f'<details><summary>{escape(settings[0])} ({len(settings)} settings)</summary>'
            f'<ul>{listed}</ul></details>')  # fmt: skip


def _way(entry: leaderboard.Entry) -> str:
    """The sampler with which the variant is compared."""
    return f'<span class="kind">{escape(entry.way.label)}</span>' if entry.way and entry.way.label else ''


def settings_against(base: Variant, variant: Variant) -> dict[str, Any]:
    """Config keys in which a variant differs from another, with the variant's own values."""
    changed = configs.difference(base.shown.config, variant.shown.config)
    return {key: new for key, (_, new) in changed.items() if not key.startswith(_OWN)}


def _comparable(study: StudyRecord, variant: Variant, reference: Cell, own: Cell | None) -> Cell | None:
    """The variant's number that was measured as the baseline's was; for likelihoods, by the same method."""
    if reference.metric.name == LIKELIHOOD:
        found = [cell for cell in cells.of(study, LIKELIHOOD) if cell.variant == variant.name]
        same = [cell for cell in found if cell.protocol.get('method') == reference.protocol.get('method')]
        own = same[0] if same else None
    return own if own is not None and own.measurement == reference.measurement else None


def _dash(own: Cell | None, reference: Cell) -> str:
    """Say why there is no difference."""
    if own is None:
        return '<td>–</td>'
    methods = [str(cell.protocol.get('method')) for cell in (own, reference)]
    told = ' is not '.join(methods) if methods[0] != methods[1] else 'not measured the same way'
    return f'<td>–<span class="kind">{escape(told)}</span></td>'


def _absolute(cell: Cell) -> str:
    sd, shown = cell.estimate.sd, cell.metric.form.format
    spread = f'<span class="kind"> ± {shown(sd)}</span>' if cell.seeds > 1 and sd else ''
    return f'<td>{shown(cell.value)}{spread}</td>'


def _difference(cell: Cell | None, reference: Cell) -> str:
    """Mean difference and its 95% interval, with a verdict in words if it excludes zero; '' if nothing compares."""
    difference = statistics.paired(cell.by_seed, reference.by_seed) if cell else None
    if cell is None or difference is None:
        return ''

    def signed(value: float) -> str:
        return cell.metric.form.replace(':', ':+').format(value).replace('-', '−')

    interval, verdict = difference.interval(), ''
    told = f'n = {difference.n}'
    if interval is not None:
        low, high = interval
        left = [name for name in difference.missing if name != statistics.OTHERS]  # the section says this once
        told = f'[{signed(low)}, {signed(high)}], {told}{"".join(f", without {name}" for name in left)}'
        if low > 0 or high < 0:
            falls = cell.metric.lower_is_better if cell.metric.name != LIKELIHOOD else True
            better = None if falls is None else (high < 0) == falls
            verdict = {None: ' differs', True: ' better', False: ' worse'}[better]
    mark = f' class="{verdict.strip()}"' if verdict else ''
    word = f'<b>{verdict}</b>' if verdict else ''
    return f'<td{mark}>{signed(difference.mean)}{word}<span class="kind">{told}</span></td>'
