"""How a study stands is told from its folder alone, also of trials that cannot speak for themselves."""

import datetime
import io
import json
import os
import subprocess
import sys

import pytest

from genbench import cli
from genbench.errors import UserError
from genbench.studies import state, status
from genbench.studies.launchers import squeue


@pytest.fixture
def study(tmp_path):
    """`study(name={key: value}, …)` → a study's folder whose trials have these statuses."""

    def make(**trials):
        (tmp_path / 'study.json').write_text(json.dumps({'trials': list(trials)}))
        for name, values in trials.items():
            if values is not None:
                folder = tmp_path / 'trials' / name
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
                folder.mkdir(parents=True)
                (folder / 'status.json').write_text(json.dumps({'updated': now, **values}))
        return tmp_path

    return make


def test_a_table_shows_every_trial_and_exits_with_0(study, capsys):
    folder = study(
        first={
            'state': 'running',
            'phase': 'training',
            'step': 50,
            'num_steps': 200,
            'host': 'node1',
            'job': 'local:9',
        },
        second={
            'state': 'failed',
            'reason': 'killed by SIGKILL',
            'step': 3,
            'num_steps': 200,
            'last_lines': ['a', 'b'],
        },
        third=None,
    )
    row = {'step': 100, 'images_seen': 1000, 'speed/images_per_second': 20.0}
    (folder / 'trials' / 'first' / 'metrics.jsonl').write_text(json.dumps(row) + '\n{"step": 110, "im')
    assert cli.main(['status', str(folder)]) == 0
    head, first, second, third, counts, *log = capsys.readouterr().out.splitlines()
    assert head.split() == ['trial', 'state', 'step', 'share', 'images/s', 'left', 'updated', 'host', 'job', 'reason']
    assert first.split()[:7] == ['first', 'running', '100/200', '50%', '20', '50', 's'] and 'local:9' in first
    assert 'killed by SIGKILL' in second and '3/200' in second
    assert third.split() == ['third', 'queued']
    assert counts == '1 queued, 1 running, 1 failed'
    assert log == ['The log of second ends with:', '  a', '  b']


def test_a_folder_without_a_study_is_one_line(tmp_path, capsys):
    assert cli.main(['status', str(tmp_path)]) == 2
    assert 'is not a study' in capsys.readouterr().err


def test_a_status_of_an_older_format_is_read(study):
    rows = status.of_study(study(a={'state': 'interrupted'}, b={'state': 'training'}))
    assert [row.state for row in rows] == ['preempted', 'running']


def test_a_process_of_this_machine_that_is_gone_is_told(study):
    gone = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'], stdout=subprocess.PIPE, check=True)
    here = {'state': 'running', 'host': state.host()}
    folder = study(gone={**here, 'job': f'local:{int(gone.stdout)}'}, alive={**here, 'job': f'local:{os.getpid()}'})
    gone_row, alive = status.of_study(folder)
    assert gone_row.state == 'failed' and 'has disappeared' in gone_row.reason
    assert (alive.state, alive.reason) == ('running', '')


def test_a_trial_of_another_machine_that_is_silent_is_told_by_its_age(study):
    then = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=10)).isoformat()
    (row,) = status.of_study(study(a={'state': 'running', 'host': 'elsewhere', 'job': 'local:1', 'updated': then}))
    assert (row.state, row.reason) == ('running', 'no sign of life for 10 min')


@pytest.mark.parametrize(
    ('now', 'entry', 'wanted', 'words'),
    [
        ('queued', ('PENDING', 'Resources'), 'queued', 'waits for free resources (SLURM: Resources)'),
        ('queued', ('PENDING', 'JobHeldUser'), 'queued', 'scontrol release 7_1'),
        ('queued', ('PENDING', 'QOSMaxCpuPerUserLimit'), 'queued', 'SLURM: QOSMaxCpuPerUserLimit'),
        ('queued', ('PENDING', 'DependencyNeverSatisfied'), 'failed', 'will never start'),
        ('preempted', ('PENDING', 'BeginTime'), 'preempted', 'requeued'),
        ('running', ('PENDING', 'BeginTime'), 'preempted', 'requeued'),
        ('running', ('CANCELLED', 'None'), 'failed', 'its job was cancelled; run the study again to continue from'),
        ('running', ('OUT_OF_MEMORY', 'OutOfMemory'), 'failed', 'out of memory'),
        ('running', ('TIMEOUT', 'TimeLimit'), 'failed', '--time'),
        ('running', None, 'failed', 'SLURM no longer knows its job'),
        ('running', ('RUNNING', 'None'), 'running', ''),
    ],
)
def test_what_slurm_says_of_a_job_is_put_in_words(study, monkeypatch, now, entry, wanted, words):
    jobs = {'7_1': squeue.Entry(*entry)} if entry else {}
    monkeypatch.setattr(squeue, 'read', lambda: jobs)
    (row,) = status.of_study(study(a={'state': now, 'job': 'slurm:7_1', 'step': 40}))
    assert row.state == wanted and words in row.reason
    assert bool(row.reason) == bool(words)


def test_reading_a_status_needs_no_jax(study):
    code = (
        'import sys; from genbench import cli; cli.main(sys.argv[1:]); '
        'assert not {"jax", "submitit", "rich"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code, 'status', str(study(a={'state': 'done'}))], check=True, timeout=60)


def test_a_narrow_terminal_keeps_the_names_of_trials(study):
    from rich import console

    names = ['inductive_moment_matching-s0', 'normalizing_flow-s12', 'x' * 90]
    running = {'state': 'running', 'phase': 'evaluating', 'part': '3/8', 'step': 500, 'num_steps': 500}
    found = status.of_study(study(**dict.fromkeys(names, running)))
    for width in (80, 200):
        terminal = console.Console(width=width, record=True, file=io.StringIO())
        terminal.print(status.table(found, width))
        shown = terminal.export_text()
        assert all(name in shown.replace('\n', '') for name in names[:2])
        assert shown.count('x') == 90 and 'running (evaluating 3/8)' in shown and '…' not in shown


def test_what_is_left_of_a_study_follows_from_the_trials_that_are_done(study):
    def trial(state, training, evaluating=0.0):
        return {'state': state, 'seconds': {'training': training, 'evaluating': evaluating}}

    folder = study(**{
        'a-s0': trial('done', 80.0, 20.0), 'b-s0': trial('done', 30.0, 10.0), 'a-s1': trial('running', 60.0),
        'b-s1': {'state': 'queued'}, 'c-s0': {'state': 'queued'},
    })  # fmt: skip
    found = status.of_study(folder)
    # a: 100 − 60; b: 40; c, of which no seed is done: the mean of 100 and 40.
    assert status.remaining(found, 1) == pytest.approx(40 + 40 + 70)
    assert status.remaining(found, 2) == pytest.approx(75)
    assert status.remaining(found, 5) == pytest.approx(70)
    assert status.remaining(found[2:], 1) is None


def test_a_folder_that_cannot_be_read_raises(tmp_path):
    with pytest.raises(UserError, match='genbench run STUDY --out'):
        status.of_study(tmp_path / 'nothing')
