"""`genbench verify --all`: what is run, in which order, and what is said of the rest."""

import dataclasses
import json
import signal

import pytest

from genbench import cli
from genbench.errors import INTERRUPTED
from genbench.studies import costs, ledger, package, records, verify_all

QUICK, SLOW, LONG = 'digits-gaussian', 'digits-flow-matching', 'ddpm-fid'


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """`ran(minutes, names…, statuses={}, …)` → ({row: entry}, [row that was started, …], lines).

    No process is started. A step of the Gaussian takes 0.01 s and one of the U-Net 1 s. Nothing has evidence.
    """
    monkeypatch.chdir(tmp_path)
    for name in ('RECORDS', 'EVIDENCE'):
        monkeypatch.setattr(ledger, name, tmp_path / 'evidence')

    def estimate(requests):
        return [
            costs.Cost(1, [(None, [1e20 if one.config.data.name == 'cifar10' else 1e6])],
                       step_seconds=[0.01 if one.config.family.name == 'gaussian' else 1.0])
            for one in requests
        ]  # fmt: skip

    monkeypatch.setattr(costs, 'estimate', estimate)

    def run(minutes, *names, statuses=None, **options):
        started, said = [], []

        def start(words, seconds):
            started.append(words[1])
            status = (statuses or {}).get(words[1], 0)
            return status if isinstance(status, tuple) else (status, False)

        monkeypatch.setattr(verify_all, 'start', start)
        monkeypatch.setattr(verify_all.opening, 'open_data', lambda data: None)
        entries = verify_all.run([ledger.get(name) for name in names], minutes, said.append, **options)
        return {entry.row.id: entry for entry in entries}, started, said

    return run


def unfinished(name, step, complete=False):
    folder = verify_all.RUNS / name
    folder.mkdir(parents=True)
    (folder / 'summary.json').write_text(json.dumps({'complete': complete, 'step': step}))
    (folder / 'manifest.json').write_text('{}')
    (folder / verify_all.verify.CODE).write_text(json.dumps({'code': package.code()}))


def test_the_shortest_comes_first_and_what_does_not_fit_is_skipped_with_its_time(ran):
    entries, started, said = ran(20, LONG, SLOW, QUICK)
    assert started == [QUICK, SLOW]
    assert 'needs at least' in entries[LONG].why and 'are left' in entries[LONG].why
    assert said[-1] == '2 run, 2 of them reproduced, 1 skipped.'
    assert [line.split()[:2] for line in said[-5:-2]] == [
        [SLOW, 'reproduced'],
        [QUICK, 'reproduced'],
        [LONG, 'skipped'],
    ]


def test_a_row_without_a_recipe_is_no_candidate(ran):
    assert not ledger.get('nice-tfd-nats').config
    entries, started, _ = ran(20, 'nice-tfd-nats', QUICK)
    assert list(entries) == started == [QUICK]


def test_what_this_code_has_reproduced_is_not_run_again(ran):
    row = ledger.get(QUICK)
    ledger.RECORDS.mkdir()
    path = ledger.RECORDS / f'{QUICK}.json'
    path.write_text(json.dumps({'value': row.value, **records.origin(row)}))
    entries, started, _ = ran(20, QUICK)
    assert not started
    assert entries[QUICK].why == f'reproduced; genbench verify {QUICK} --record measures it again'
    path.write_text(json.dumps({'value': row.value, **records.origin(row), 'code': 'another'}))
    assert ran(20, QUICK)[1] == [QUICK]


def test_an_unfinished_run_needs_only_what_is_left_of_it(ran):
    unfinished(SLOW, 490)
    entries, started, _ = ran(0.5, SLOW)
    assert started == [SLOW]
    assert entries[SLOW].seconds == pytest.approx(10)


@pytest.mark.parametrize('complete', [False, True])
def test_a_run_that_other_code_began_is_neither_lost_nor_taken_for_ours(ran, monkeypatch, complete):
    unfinished(QUICK, 479, complete)
    for same in (False, True):
        monkeypatch.setattr(verify_all.verify, 'by_this_code', lambda folder, same=same: same)
        entries, started, _ = ran(20, QUICK)
        assert started == [QUICK] * same
        assert same or 'other code began' in entries[QUICK].why


def test_each_seed_of_a_row_takes_its_time(ran, monkeypatch):
    row = dataclasses.replace(ledger.get(SLOW), seeds=3)
    monkeypatch.setattr(ledger, 'get', lambda name: row)
    unfinished(f'{SLOW}/seed_1', 400)
    entries, *_ = ran(20, SLOW)
    assert entries[SLOW].unfinished and entries[SLOW].seconds == pytest.approx(500 + 100 + 500)


def test_continue_goes_on_with_unfinished_runs_first_even_if_they_do_not_fit(ran):
    unfinished(SLOW, 5)
    without, started, _ = ran(1, SLOW, QUICK)
    assert started == [QUICK] and without[SLOW].why.endswith('--continue goes on with its run')
    _, started, _ = ran(1, SLOW, QUICK, statuses={SLOW: INTERRUPTED}, go_on=True)
    assert started[0] == SLOW


def test_the_exit_status_tells_what_happened(ran):
    assert verify_all.status(ran(20, QUICK)[0].values()) == 0
    assert verify_all.status(ran(20, QUICK, statuses={QUICK: 1})[0].values()) == 1
    missed = ran(20, QUICK, statuses={QUICK: verify_all.MISSED})[0]
    assert missed[QUICK].done == ledger.GAP and verify_all.status(missed.values()) == 1
    assert ran(20, QUICK, statuses={QUICK: 1})[0][QUICK].done == 'failed; the error is above'
    assert verify_all.status(ran(20, QUICK, statuses={QUICK: 2})[0].values()) == 1
    assert verify_all.status(ran(20, QUICK, statuses={QUICK: -signal.SIGTERM})[0].values()) == INTERRUPTED


@pytest.mark.parametrize('end', [INTERRUPTED, (INTERRUPTED, True), (-signal.SIGTERM, True), (0, True)])
def test_ctrl_c_and_sigterm_end_the_others_too(ran, end):
    entries, started, _ = ran(20, QUICK, SLOW, statuses={QUICK: end})
    assert started == [QUICK]
    assert entries[SLOW].why == 'Ctrl-C or SIGTERM came first'


def test_a_recipe_whose_data_are_not_prepared_is_skipped_with_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = verify_all._entry(ledger.get('iwae-1-layer-k5-mnist-nats'), str(tmp_path))
    assert f'genbench data prepare mnist --data_dir={tmp_path}' in entry.why


def test_the_time_of_evidence_counts_on_the_same_kind_of_machine():
    found = {'seconds': {'training': 5.0, 'evaluation': None}, 'cores': 2, 'processor': records.processor()}
    assert verify_all._recorded(found, 2) == 5
    both = {**found, 'seconds': {'training': 8.0, 'evaluation': 2.0}}
    assert verify_all._recorded(both, 2, left=0.25) == 4
    assert verify_all._recorded(found, 4) == verify_all._recorded(None, 2) == float('inf')


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """`stand_in(code)` makes this the body of genbench's `cli.main` in processes that `start` starts."""

    def write(*lines):
        (tmp_path / 'genbench').mkdir()
        body = '\n    '.join(('def main():', 'import os, signal, sys, time', *lines))
        (tmp_path / 'genbench' / 'cli.py').write_text(f'{body}\n')
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
        monkeypatch.chdir(tmp_path)

    return write


SAVES = 'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))'


def test_a_process_that_runs_out_of_time_is_asked_to_stop(stand_in):
    """By SIGTERM, after which it may save."""
    stand_in(SAVES, 'time.sleep(60)')
    assert verify_all.start([], 1.0) == (INTERRUPTED, False)


def test_sigterm_goes_on_to_the_process_which_saves(stand_in):
    before = signal.getsignal(signal.SIGTERM)
    stand_in(SAVES, 'os.kill(os.getppid(), signal.SIGTERM)', 'time.sleep(60)')
    assert verify_all.start([], 50.0) == (INTERRUPTED, True)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ('line', 'outcome'), [('return 0', 'reproduced'), ('return 1', 'run with gap'), ('raise OSError', 'failed')]
)
def test_an_exception_is_not_taken_for_a_gap(stand_in, line, outcome):
    stand_in(line)
    status, _ = verify_all.start([], 60.0)
    assert verify_all.OUTCOMES[status].split(';')[0] == outcome


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ((), 'takes a row that genbench baselines lists, or --all.'),
        ((QUICK, '--all'), 'or --all, and not both.'),
        (('--all',), '--all needs --max-minutes=N'),
        (('--all', '--max-minutes=0'), '--all needs --max-minutes=N'),
        (('--all', '--max-minutes=5', '--check'), 'takes no --run, --workdir or --check'),
        ((QUICK, '--continue'), '--continue goes with --all'),
        ((QUICK, '--max-minutes=5'), '--max-minutes goes with --all'),
        (('iwae-1-layer-k5-mnist-nats', '--data-dir={tmp}'), 'genbench data prepare mnist --data_dir={tmp}'),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, message):
    assert cli.main(['verify', *(word.format(tmp=tmp_path) for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message.format(tmp=tmp_path) in line


def test_a_heading_comes_before_what_its_process_prints(monkeypatch):
    """Also where the output is redirected, for which Python keeps lines back."""
    flushed = []
    monkeypatch.setattr('builtins.print', lambda *words, flush=False, **_: flushed.append(flush))
    monkeypatch.setattr(verify_all, 'run', lambda rows, minutes, say, **_: say('heading') or [])
    assert cli.main(['verify', '--all', '--max-minutes=5']) == 0
    assert flushed == [True]
