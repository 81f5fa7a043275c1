"""What the numbers of a study decide: each test of its claim, the ranks of its variants, and every pair of variants."""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from genbench.evaluation import statistics
from genbench.evaluation.statistics import Estimate
from genbench.report import cells as numbers
from genbench.report import claims, comparisons, leaderboard
from genbench.report.cells import BY_NAME, LIKELIHOOD, Cell
from genbench.report.claims import LESS, MORE, NEAR, Comparison
from genbench.report.collect import StudyRecord
from genbench.report.comparisons import ALPHA, Pair, Rank
from genbench.report.marks import swatch

HOLDS, FAILS, UNDECIDED, UNFINISHED, UNTESTED = 'holds', 'fails', 'undecided', 'not finished', 'not tested'
RANKED = ('fid', 'fd', 'kid', 'kd', 'precision', 'recall', 'density', 'coverage')
_SIGNS = {LESS: 'is lower than', MORE: 'is higher than', NEAR: 'is near'}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A test of a claim: its verdict, the reason for it, and the numbers, which are None if there are none.

    `against` is the p-value of the evidence against the claim, before correction.
    """

    test: Comparison
    verdict: str
    why: str = ''
    one: Cell | None = None
    other: Cell | None = None
    difference: Estimate | None = None
    against: float = 1.0


def verdict(found: Sequence[Finding]) -> str:
    """The verdict on a claim: it fails if one of its tests fails, and holds if all of them hold."""
    said = {one.verdict for one in found}
    if FAILS in said:
        return FAILS
    return UNTESTED if not said else UNFINISHED if UNFINISHED in said else HOLDS if said == {HOLDS} else UNDECIDED


def judged(study: StudyRecord, tests: Sequence[Comparison]) -> list[Finding]:
    """The tests of a claim, each at 5%, two-sided.

    The claim holds only if all of them hold, so tests that hold need no correction (Berger 1982). A single failure
    refutes the claim, so failures are corrected for the number of tests by Holm's method.
    """
    found = [_judged(study, test) for test in tests]
    corrected = comparisons.holm([one.against for one in found])
    return [
        dataclasses.replace(one, verdict=FAILS, why='') if p <= ALPHA else one
        for one, p in zip(found, corrected, strict=True)
    ]


def _judged(study: StudyRecord, test: Comparison) -> Finding:
    waiting = [t for t in study.trials if t.variant in test.variants and t.state != 'done']
    if waiting:
        return Finding(test, UNFINISHED, ', '.join(f'{trial.name} ({trial.state})' for trial in waiting))
    one, other = _cell(study, test.one, test.metric, test.where), None
    if one is None:
        return Finding(test, UNDECIDED, f'{test.one} does not have this number')
    if isinstance(test.other, str):
        other = _cell(study, test.other, test.metric, test.against)
        if other is None:
            return Finding(test, UNDECIDED, f'{test.other} does not have this number', one)
        if not _alike(one, other, test):
            return Finding(test, UNDECIDED, 'the two were not measured the same way', one, other)
        found = comparisons.difference(one, other)
        tells = comparisons.tells(one, other, found)
    else:
        found = dataclasses.replace(one.estimate, mean=one.value - test.other)
        tells = statistics.TRAINING in found.varied
    return _decided(Finding(test, UNDECIDED, '', one, other, found), tells)


def _decided(finding: Finding, tells: bool) -> Finding:
    test, found = finding.test, finding.difference
    assert found is not None
    if not tells:
        why = 'with one training seed' if found.n == 1 else 'without a known error'
        return dataclasses.replace(finding, why=f'{why}, the variation between training runs is unknown')
    low = {LESS: -float('inf'), MORE: test.margin, NEAR: -test.margin}[test.relation]
    high = {LESS: -test.margin, MORE: float('inf'), NEAR: test.margin}[test.relation]
    inside, outside = comparisons.p_inside(found, low, high)
    if inside <= ALPHA:
        return dataclasses.replace(finding, verdict=HOLDS)
    return dataclasses.replace(finding, why='the interval contains both outcomes', against=outside)


def _cell(study: StudyRecord, variant: str, metric: str, where: Mapping[str, Any]) -> Cell | None:
    """The number that a test is about: the best of several matching samplers; the leaderboard's if none is named."""
    if not where:
        entry = next((one for one in leaderboard.entries(study) if one.variant == variant), None)
        return entry.cells.get(metric) if entry else None
    own = [c for c in numbers.of(study, metric) if c.variant == variant] if metric in BY_NAME else []
    fitting = [cell for cell in own if all(_same(_facts(cell).get(key), value) for key, value in where.items())]
    most = max((cell.seeds for cell in fitting), default=0)
    sign = -1 if fitting and fitting[0].metric.lower_is_better is False else 1
    return min((cell for cell in fitting if cell.seeds == most), key=lambda cell: sign * cell.value, default=None)


def _facts(cell: Cell) -> dict[str, Any]:
    protocol = cell.protocol
    return {**protocol, **protocol.get('sampler_options', {}), 'kind': cell.rows[0]['kind']}


def _same(found: Any, wanted: Any) -> bool:
    return found == wanted or str(found) == str(wanted)


def _alike(one: Cell, other: Cell, test: Comparison) -> bool:
    """Likelihoods of two methods may be compared only if the test names both."""
    named = test.metric == LIKELIHOOD and 'method' in test.where and 'method' in test.against
    return one.measurement == other.measurement or named


def table(found: Sequence[Finding], shown: Mapping[str, str], label: str) -> str:
    """The tests of a claim, as a region of this name. `shown` maps each metric to its section, if it has one."""
    rows = ''.join(_row(one, shown) for one in found)
    words = ' class="words"'
    head = ''.join(f'<th scope="col"{words if name == "verdict" else ""}>{name}</th>'
                   for name in ('test', 'verdict', 'difference', '95% interval', 'seeds'))  # fmt: skip
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="tests">'
        f'<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(finding: Finding, shown: Mapping[str, str]) -> str:
    found, form = finding.difference, _form(finding.test.metric)
    interval = found.interval() if found else None
    told = [f'{_signed(found.mean, form)}' if found else '–',
            f'[{_signed(interval[0], form)}, {_signed(interval[1], form)}]' if interval else '–',
            str(found.n) if found else '–']  # fmt: skip
    why = f'<span class="kind">{escape(finding.why)}</span>' if finding.why else ''
    body = ''.join(f'<td>{text}</td>' for text in told)
    return (f'<tr><th scope="row">{_statement(finding, shown)}</th>'
            f'<td class="words">{badge(finding.verdict)}{why}</td>{body}</tr>')  # fmt: skip


def _statement(finding: Finding, shown: Mapping[str, str]) -> str:
    test = finding.test
    title = escape(BY_NAME[test.metric].title if test.metric in BY_NAME else test.metric)
    if shown.get(test.metric):
        metric = escape(test.metric, quote=True)
        title = f'<a href="#{shown[test.metric]}" data-metric="{metric}">{title}</a>'
    margin = f' by more than {test.margin:g}' if test.margin and test.relation != NEAR else ''
    within = f' (within {test.margin:g} of it)' if test.relation == NEAR else ''
    other = f'{test.other:g}' if not isinstance(test.other, str) else f'that of {test.other}'
    ways = [_way(finding.one, test.where), _way(finding.other, test.against)]
    told = ' against '.join(dict.fromkeys(filter(None, ways)))
    note = f'<span class="kind">{escape(told)}</span>' if told else ''
    return f'{title} of {escape(test.one)} {_SIGNS[test.relation]} {escape(other)}{margin}{within}{note}'


def _way(cell: Cell | None, where: Mapping[str, Any]) -> str:
    """How the number was sampled or scored."""
    if cell is None:
        return claims.described(where)
    if cell.metric.name == LIKELIHOOD:
        return str(cell.protocol.get('method'))
    average = where.get('average')
    return cell.way.label + (f' · {average}' if average and average not in cell.way.label else '')


def badge(said: str) -> str:
    marks = {HOLDS: '✓', FAILS: '✕', UNDECIDED: '?', UNFINISHED: '…', UNTESTED: '–'}
    return f'<span class="verdict {said.replace(" ", "-")}"><i aria-hidden="true">{marks[said]}</i> {said}</span>'


def _form(metric: str) -> str:
    return BY_NAME[metric].form if metric in BY_NAME else '{:.3g}'


def _signed(value: float, form: str) -> str:
    return form.replace(':', ':+').format(value).replace('-', '−')


@dataclasses.dataclass(frozen=True)
class Contest:
    """The variants measured alike in one metric, every pair of them, and their ranks, best first."""

    metric: str
    pairs: list[Pair]
    ranks: list[Rank]

    @property
    def decided(self) -> bool:
        return any(pair.decided for pair in self.pairs)


def contests(study: StudyRecord) -> list[Contest]:
    """One contest for each metric that at least two variants have, each variant with its sampler on the leaderboard."""
    entries, found = leaderboard.entries(study), []
    for name in RANKED:
        cells = list(comparisons.alike({e.variant: e.cells[name] for e in entries if name in e.cells}).values())
        if len(cells) > 1:
            pairs = comparisons.pairs(cells)
            found.append(Contest(name, pairs, comparisons.ranks(cells, pairs)))
    return found


def first(contest: Contest) -> str:
    """One sentence on which variant is best, and how sure that is."""
    title, form = BY_NAME[contest.metric].title, BY_NAME[contest.metric].form
    best = contest.ranks[0]
    rivals = [rank.cell.variant for rank in contest.ranks[1:] if rank.low == 1]
    lead = f'By {title}, {best.cell.variant} comes first ({form.format(best.cell.value)})'
    if not rivals:
        return f'{lead}. It is significantly better than every other model.'
    if len(rivals) == len(contest.ranks) - 1:
        return f'{lead}, but any of the others may be better.'
    return f'{lead}, but {_or(rivals)} may be better.'


def disagreements(found: Sequence[Contest]) -> list[str]:
    """Variants whose places differ by half the field, and pairs that two metrics order in opposite ways."""
    said = []
    places: dict[str, dict[str, int]] = {}
    for contest in found:
        for rank in contest.ranks:
            places.setdefault(rank.cell.variant, {})[contest.metric] = rank.place
    for variant, own in places.items():
        low, high = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
        if own[high] - own[low] >= max(2, len(places) / 2):
            said.append(f'{variant} is {_ordinal(own[low])} by {BY_NAME[low].title} and {_ordinal(own[high])} by '
                        f'{BY_NAME[high].title}.')  # fmt: skip
    better = {contest.metric: _better(contest) for contest in found}
    names = [contest.metric for contest in found]
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            for winner, loser in sorted(better[one] & {pair[::-1] for pair in better[other]}):
                said.append(f'{winner} is better than {loser} by {BY_NAME[one].title} but worse by '
                            f'{BY_NAME[other].title}; both differences are significant.')  # fmt: skip
    return said


def _better(contest: Contest) -> set[tuple[str, str]]:
    """(better, worse) for each decided pair."""
    sign = 1 if BY_NAME[contest.metric].lower_is_better else -1
    return {
        (pair.one.variant, pair.other.variant) if sign * pair.difference.mean < 0
        else (pair.other.variant, pair.one.variant)
        for pair in contest.pairs if pair.decided
    }  # fmt: skip


def _ordinal(place: int) -> str:
    ending = 'th' if place % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(place % 10, 'th')
    return f'{place}{ending}'


def _or(names: Sequence[str]) -> str:
    return ' or '.join(filter(None, (', '.join(names[:-1]), *names[-1:])))


def standings(study: StudyRecord, found: Sequence[Contest]) -> str:
    """Ranks by metric, with the places left open."""
    names = list(dict.fromkeys(rank.cell.variant for contest in found for rank in contest.ranks))
    head = ''.join(f'<th scope="col">{escape(BY_NAME[contest.metric].title)}</th>' for contest in found)
    rows = ''
    for name in names:
        body = ''
        for contest in found:
            rank = next((rank for rank in contest.ranks if rank.cell.variant == name), None)
            span = '' if rank is None else f'<span class="kind">{_places(rank)}</span>'
            body += f'<td>{rank.place if rank else "–"}{span}</td>'
        rows += f'<tr><th scope="row">{_named(study, name)}</th>{body}</tr>'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Ranks"><table class="ranks"><thead><tr>'
        f'<th scope="col">model</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _places(rank: Rank) -> str:
    return f'{rank.low} to {rank.high}' if rank.low < rank.high else 'certain'


def _named(study: StudyRecord, variant: str) -> str:
    index = next(one.index for one in study.variants if one.name == variant)
    return f'{swatch(index)}{escape(variant)}'


def matrix(study: StudyRecord, contest: Contest, hidden: bool) -> str:
    """Row minus column for every pair, with a word if the difference is decided."""
    order = [rank.cell for rank in contest.ranks]
    found = {(pair.one.variant, pair.other.variant): pair for pair in contest.pairs}
    head = ''.join(f'<th scope="col">{_named(study, cell.variant)}</th>' for cell in order)
    rows = ''
    for cell in order:
        body = ''.join(_difference(cell, other, found) for other in order)
        rows += f'<tr><th scope="row">{_named(study, cell.variant)}</th>{body}</tr>'
    title = escape(BY_NAME[contest.metric].title, quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Differences in {title}" '
        f'data-pairs="{contest.metric}"{" hidden" if hidden else ""}><table class="pairs"><thead><tr>'
        f'<th scope="col">{title}: row − column</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _difference(cell: Cell, other: Cell, found: Mapping[tuple[str, str], Pair]) -> str:
    if cell is other:
        return '<td class="self"></td>'
    turned = (cell.variant, other.variant) not in found
    pair = found[(other.variant, cell.variant) if turned else (cell.variant, other.variant)]
    sign, form, interval = (-1 if turned else 1), cell.metric.form, pair.interval
    low, high = sorted(sign * end for end in interval) if interval else (None, None)
    told = '' if low is None or high is None else f'[{_signed(low, form)}, {_signed(high, form)}]'
    mean = sign * pair.difference.mean
    word = ''
    if pair.decided:
        word = 'better' if (mean < 0) == bool(cell.metric.lower_is_better) else 'worse'
    mark = f' class="{word}"' if word else ''
    return f'<td{mark}>{_signed(mean, form)}{f" <b>{word}</b>" if word else ""}<span class="kind">{told}</span></td>'


def html(study: StudyRecord, shown: Mapping[str, str]) -> str:
    """The section: each claim with its tests, which is best and how sure that is, and the pairs of each metric."""
    found = contests(study)
    parts = (_claim(study, one, shown, number) for number, one in enumerate(study.claims, 1))
    return ''.join(parts) + (_best(study, found) if found else '')


def _claim(study: StudyRecord, description: Mapping[str, Any], shown: Mapping[str, str], number: int) -> str:
    if not description.get('claim'):
        return ''
    tests = judged(study, claims.read(description.get('tests') or ()))
    label = 'Tests of the claim' if len(study.claims) == 1 else f'Tests of claim {number}'
    body = table(tests, shown, label) if tests else '<p class="quiet">The study has no tests of its claim.</p>'
    if len(study.claims) == 1:  # the page begins with it
        return f'<h3>The claim, test by test</h3>{body}'
    title = escape(description.get('title') or 'A study')
    return f'<h3>{title}: {badge(verdict(tests))}</h3><p>{escape(description["claim"])}</p>{body}'


def _best(study: StudyRecord, found: Sequence[Contest]) -> str:
    sentences = ''.join(f'<li>{escape(first(contest))}</li>' for contest in found)
    if not any(contest.decided for contest in found):
        sentences = '<li>No two models differ significantly.</li>'
    flagged = ''.join(f'<li>{escape(said)}</li>' for said in disagreements(found))
    flags = f'<p class="flag"><b>The metrics disagree:</b></p><ul class="flag">{flagged}</ul>' if flagged else ''
    options = ''.join(f'<option value="{c.metric}">{escape(BY_NAME[c.metric].title)}</option>' for c in found)
    tables = ''.join(matrix(study, contest, index > 0) for index, contest in enumerate(found))
    return f"""<h3>Which is best, and how certain is it?</h3><ul>{sentences}</ul>{flags}
      <p class="quiet">Places are by the mean over seeds. Below each are all places that remain possible. These ranges
      hold together with 95% confidence.</p>{standings(study, found)}
      <h3>Every pair</h3>
      <div class="controls"><label>Differences in <select id="pairs-metric">{options}</select></label></div>{tables}
      <details class="notes"><summary>How the differences are computed</summary>
      <p>Each model uses its sampler on the leaderboard. A difference is the mean over the training seeds that two
      models share, paired because runs with the same seed share noise. Without common seeds, Welch's test is used.
      The interval is Student's, at 95% for this pair alone. It covers training seeds, sets of samples and halves of
      the held-out split. The words better and worse use Holm's correction for the number of pairs, so an interval
      may exclude zero without either word. With a single seed, no difference between models is significant.</p>
      <p>Each test of a claim is two-sided at 5%. The claim holds if all of its tests hold, which needs no
      correction. It fails if one test fails, and failures are corrected for the number of tests.</p></details>"""
