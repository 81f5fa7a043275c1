"""The page of reproductions, and what evidence says about where it comes from."""

import dataclasses
import json

import pytest

from genbench import cli
from genbench.studies import ledger, package, records, reproductions

ROW = ledger.get('digits-gaussian')


@pytest.fixture
def evidence(tmp_path):
    """`evidence(**values)` writes evidence of ROW, by the present code, and returns its folder."""

    def write(**values):
        kept = {'value': 2.9433, 'std_err': 0.018, **records.origin(ROW), **values}
        (tmp_path / f'{ROW.id}.json').write_text(json.dumps(kept))
        return tmp_path

    return write


def cells(page, name):
    (line,) = [line for line in page.splitlines() if line.startswith(f'| `{name}` |')]
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_the_committed_page_is_what_the_ledger_and_the_evidence_give():
    """`genbench baselines --markdown > docs/reproductions/README.md` makes it current.

    The page says by which code it was written. That code may be older, for any change of the package changes it.
    """
    committed = reproductions.PAGE.read_text()
    assert committed == reproductions.page(ledger.rows(), reproductions.code_of(committed), ledger.EVIDENCE)


def test_the_command_prints_the_page(capsys):
    assert cli.main(['baselines', '--markdown', '--where', 'data=digits']) == 0
    page = capsys.readouterr().out
    assert reproductions.code_of(page) == package.code()
    assert f'`{package.code()}`, a hash of the sources with which this page was written' in page
    assert '`digits-gaussian`' in page and 'ddpm-fid' not in page


def test_a_line_says_what_was_published_and_what_was_measured(evidence):
    more = {'seconds': {'training': 100.0, 'evaluation': 80.0}, 'cores': 2, 'processor': 'some processor'}
    page = reproductions.page([ROW], folder=evidence(**more))
    assert cells(page, ROW.id) == [
        '`digits-gaussian`', ROW.paper, '2.943 ± 0.01 bits per dim on digits', '2.943 ± 0.018', 'reproduced', '3.0 min',
        '2 cores of some processor', '', '`genbench verify digits-gaussian --record`',
    ]  # fmt: skip
    assert page.count(ROW.reason) == 1


@pytest.mark.parametrize(
    ('values', 'ours', 'status'),
    [
        ({'value': 3.1}, '3.1 ± 0.018', 'run with gap'),
        ({'value': None}, 'no number', 'run with gap'),
        ({'sd': 0.5, 'values': [2.4, 2.9, 3.4]}, '2.943 ± 0.5, 3 seeds', 'reproduced'),
        ({'code': 'another'}, '2.943 ± 0.018', 'reproduced, measured by other code'),
        ({'recipe': 'another'}, '2.943 ± 0.018', 'reproduced, measured by another recipe'),
        ({'curve': {'step': [1]}, 'unheard_of': 1}, '2.943 ± 0.018', 'reproduced'),
    ],
)
def test_spread_and_status_follow_from_the_evidence(evidence, values, ours, status):
    found = cells(reproductions.page([ROW], folder=evidence(**values)), ROW.id)
    assert (found[3], found[4]) == (ours, status)


def test_a_row_that_nobody_has_run_has_its_command(tmp_path):
    row = ledger.get('iwae-1-layer-k5-mnist-nats')
    found = cells(reproductions.page([row], folder=tmp_path), row.id)
    assert found[3:] == ['', 'not yet run', '', '', '[page](iwae.md)', f'`genbench verify {row.id} --record`']


def test_the_status_says_if_the_published_number_is_from_memory(evidence):
    unsure = dataclasses.replace(ROW, confirmed='memory')
    for value, status in ((2.9433, 'reproduced'), (3.1, 'run with gap')):
        found = cells(reproductions.page([unsure], folder=evidence(value=value)), ROW.id)
        assert found[4] == f'{status} (number unconfirmed)'


def test_a_row_with_a_gap_has_a_page_that_explains_it():
    pages = reproductions._pages()
    gaps = [row.id for row in ledger.rows() if ledger.status(row, ledger.evidence(row, ledger.EVIDENCE)) == ledger.GAP]
    assert [name for name in gaps if not any(name in reproductions._words(text) for text in pages.values())] == []


def test_a_page_names_a_row_by_its_whole_id():
    text = 'See `made-mnist`, or made-2-layers.'
    assert {'made-mnist', 'made-2-layers'} <= reproductions._words(text)
    assert 'made' not in reproductions._words(text)


def test_evidence_of_other_code_is_listed_with_the_command_that_renews_it(evidence, monkeypatch, capsys):
    monkeypatch.setattr(ledger, 'RECORDS', evidence(code='another'))
    assert cli.main(['baselines', '--where', 'id=digits-gaussian outdated="other code"']) == 0
    *_, said, _ = capsys.readouterr().out.splitlines()
    assert said == 'digits-gaussian was measured by other code: genbench verify digits-gaussian --record renews it.'


def test_a_recipe_is_its_config_without_the_docstring_and_what_the_row_changes(tmp_path):
    path = tmp_path / 'config.py'
    row = dataclasses.replace(ROW, config=str(path))
    body = 'EPOCH = {}\n\n\ndef get_config():\n    {}\n    return {{"steps": {} * EPOCH, "text": """kept"""}}\n'

    def write(docstring, epoch, inner, times):
        path.write_text(f'"""{docstring}"""\n\n{body.format(epoch, inner, times)}')
        return records.recipe(row)

    first = write('One.', 1, '"""Its config."""', 2)
    assert write('Two, of\nmore lines.', 1, '"""Another\n    text."""  # a comment', 2) == first
    assert write('One.', 1, '', 2) == first
    others = [write('One.', 2, '"""Its config."""', 2), write('One.', 1, '"""Its config."""', 3)]
    write('One.', 1, '', 2)
    changes = (
        {'overrides': ('train.seed=1',)}, {'evaluation': ('evaluation.sets=2',)}, {'metric': 'nats'},
        {'measured': {'method': 'another'}}, {'seeds': 5},
    )  # fmt: skip
    others += [records.recipe(dataclasses.replace(row, **change)) for change in changes]
    assert len({first, *others}) == 8


def test_a_curve_is_thinned_and_ends_where_training_ended(tmp_path):
    rows = [{'step': step, 'elbo/loss': 1 / step, 'speed/images_per_second': 1.0} for step in range(10, 1280, 10)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    found = records.curve(tmp_path / 'metrics.jsonl')
    assert list(found) == ['step', 'elbo/loss']
    assert (len(found['step']), found['step'][0], found['step'][-1]) == (50, 10, 1270)
    assert found['elbo/loss'] == [1 / step for step in found['step']]


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (None, '–'),
        (3.21, '3.2 s'),
        (70, '70 s'),
        (240, '4.0 min'),
        (9e3, '2.5 h'),
        (1e6, '12 days'),
        (9e9, '104,167 days'),
    ],
)
def test_durations_have_the_unit_that_suits_them(seconds, text):
    assert records.span(seconds) == text
