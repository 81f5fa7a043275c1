"""The leaderboard of a study as text for a terminal of eighty columns, with the time its trials took."""

from collections.abc import Sequence

from genbench.evaluation.results import BOUNDS
from genbench.report import claims, findings, leaderboard
from genbench.report.cells import BY_NAME, LIKELIHOOD, Cell
from genbench.report.collect import StudyRecord, Variant

_SIGNS = {'lower_bound': '≤ ', 'estimate': '≈ '}
ONE_SEED = 'One training seed per model: the variation between training runs is unknown, so the order is not certain.'


def lines(study: StudyRecord) -> list[str]:
    """One line per variant, by distance, then real images, what ± is, and the verdict; [] without numbers."""
    found = sorted(leaderboard.entries(study), key=lambda entry: entry.rank)
    if not found:
        return []
    found += leaderboard.bounds(study, [cell for entry in found for cell in entry.cells.values()])
    names = (study.main_metric, LIKELIHOOD, 'evaluations_per_image')
    variants = {variant.name: variant for variant in study.variants}
    rows = [
        [entry.variant, *(_number(entry.cells.get(name)) for name in names), *_seconds(variants.get(entry.variant))]
        for entry in found
    ]
    head = ['model', *(BY_NAME[name].title for name in names), 'train', 'evaluate']
    told = findings.verdict(findings.judged(study, claims.read(study.description.get('tests') or ())))
    claim = [f'Claim: {told}.'] if study.description.get('claim') else []
    return [*_aligned([head, *rows]), '', *([ONE_SEED] if study.single else []), *claim]


def _number(cell: Cell | None) -> str:
    if cell is None:
        return ''
    form, sd, row = cell.metric.form, cell.estimate.sd, cell.rows[0]
    known = sd and row['kind'] != 'cost' and cell.variant not in BOUNDS
    sign = _SIGNS.get(row['kind'], '') if cell.metric.name == LIKELIHOOD else ''
    return sign + form.format(cell.value) + (f' ± {form.format(sd)}' if known else '')


def _seconds(variant: Variant | None) -> list[str]:
    """How long a trial took to train and to evaluate, from the shortest to the longest of several seeds."""
    found = []
    for phase in ('training', 'evaluating'):
        trials = variant.trials if variant else ()
        spent = sorted(trial.status['seconds'][phase] for trial in trials if phase in trial.status.get('seconds', {}))
        shown = list(dict.fromkeys(f'{seconds:.0f}' for seconds in (spent[:1] + spent[-1:])))
        found.append('–'.join(shown) + ' s' if shown else '')
    return found


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
