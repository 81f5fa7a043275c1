"""Trials as processes of this machine: what dies is marked, what is stopped goes on, and each has its device."""

import fcntl
import json
import os
import signal
import threading

import pytest

from genbench import cli
from genbench.studies import state, worker
from genbench.studies.launchers import local
from genbench.studies.launchers.local import Local, make_slots
from genbench.training import runs
from genbench.training.metrics import read_rows

LONG = ('train.num_steps=1500', 'train.log_every=10', 'evaluation.metrics=fd')
SHORT = 'evaluation.metrics=fd'


@pytest.mark.slow
def test_a_trial_that_is_killed_is_marked_and_stops_only_those_that_build_on_it(tiny, make_job, wait_for_step):
    killed = make_job('killed', tiny('vae', *LONG))
    jobs = [killed, make_job('waiting', tiny('gaussian', SHORT), after=('killed',)), make_job('good', tiny('gaussian'))]

    def kill():
        wait_for_step(killed.folder.path, 10)
        os.kill(int(killed.status['job'].removeprefix('local:')), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert Local(2).launch(jobs) is False
    killer.join()
    assert (killed.status['state'], killed.status['phase']) == ('failed', '')
    assert killed.status['reason'] == 'its process was killed by SIGKILL (out of memory?)'
    assert any('train vae' in line for line in killed.status['last_lines'])
    assert jobs[1].status['state'] == 'failed' and jobs[1].status['reason'] == 'it builds on killed, which failed'
    assert jobs[2].done and jobs[2].status['attempts'] == 1


@pytest.mark.slow
def test_ctrl_c_saves_all_and_the_same_command_goes_on(tiny, study_file, start, statuses, wait_for_step, tmp_path):
    file = study_file({'a': (tiny('vae', *LONG), {}), 'b': (tiny('gaussian', SHORT), {'after': ('a',)})})
    words = ('run', file, '--out', tmp_path / 'out', '--jobs', '1')
    process = start(*words)
    trial = tmp_path / 'out' / 'trials' / 'a'
    wait_for_step(trial, 20)
    seen = statuses(tmp_path / 'out')
    assert (seen['a']['state'], seen['a']['phase'], seen['a']['num_steps']) == ('running', 'training', 1500)
    assert seen['b']['state'] == 'queued'
    assert seen['a']['speed'] > 0 and seen['a']['left'] > 0
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert 'Repeat the command to continue' in out
    seen = statuses(tmp_path / 'out')
    stopped = seen['a']['step']
    assert (seen['a']['state'], seen['b']['state']) == ('preempted', 'queued')
    assert seen['a']['reason'] == f'stopped and saved at step {stopped}' and 20 <= stopped < 1500
    again = start(*words)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    steps = [row['step'] for row in read_rows(trial / 'metrics.jsonl')]
    assert steps == sorted(set(steps)) and steps[-1] == 1500
    assert [row['step'] for row in read_rows(trial / 'starts.jsonl')] == [0, stopped]
    assert state.read(trial)['attempts'] == 2


def test_a_status_is_never_half_written(tmp_path):
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            state.update(tmp_path, last_lines=['x' * 1000] * (number % 50), step=number)

    writer = threading.Thread(target=write)
    state.update(tmp_path, step=0)
    writer.start()
    try:
        found = [json.loads((tmp_path / 'status.json').read_text())['step'] for _ in range(2000)]
    finally:
        stop.set()
        writer.join()
    assert found == sorted(found) and found[-1] > 0


def test_accelerators_are_given_out_one_a_slot(tmp_path):
    for name in ('nvidia0', 'nvidia1', 'nvidia2', 'nvidiactl', 'nvidia-uvm'):
        (tmp_path / name).touch()
    given = [slot.environment for slot in make_slots(0, {}, str(tmp_path))]
    assert given == [{'CUDA_VISIBLE_DEVICES': name} for name in '012']
    some = make_slots(0, {'CUDA_VISIBLE_DEVICES': '5,7'}, str(tmp_path))
    assert [slot.environment['CUDA_VISIBLE_DEVICES'] for slot in some] == ['5', '7']
    shared = make_slots(6, {}, str(tmp_path))
    assert [slot.environment['CUDA_VISIBLE_DEVICES'] for slot in shared] == list('012012')
    assert {slot.environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] for slot in shared} == {'0.45'}


def test_without_accelerators_a_slot_is_a_core(tmp_path):
    (tmp_path / 'nvidia0').touch()
    assert len(make_slots(0, {'JAX_PLATFORMS': 'cpu'}, str(tmp_path))) == len(os.sched_getaffinity(0))
    (tmp_path / 'nvidia0').unlink()
    (tmp_path / 'accel0').touch()
    assert [slot.environment for slot in make_slots(0, {}, str(tmp_path))] == [{}]


def test_two_commands_do_not_work_in_one_folder(tiny, study_file, capsys, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    with (out / '.lock').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cli.main(['run', study_file({'a': (tiny('gaussian'), {})}), '--out', str(out)]) == 2
    assert 'Another genbench run is working in' in capsys.readouterr().err
    assert not (out / 'study.json').exists()


class Recorded:
    """Processes that are only written down, and end when told."""

    def __init__(self):
        self.started, self.over = [], []

    def start(self, name, log, environment, job, cores, *arguments):
        self.started.append((name, cores))

    def ended(self):
        over, self.over = self.over, []
        return over


def test_every_trial_gets_the_same_share_of_the_cores_and_lenders_go_first(tiny, make_job, monkeypatch):
    monkeypatch.setattr(local, '_cores', lambda: [0, 1, 2, 3, 4])
    jobs = [make_job('a', tiny('gaussian')), make_job('b', tiny('gaussian')), make_job('teacher', tiny('gaussian'))]
    jobs.append(make_job('student', tiny('gaussian'), after=('teacher',)))
    processes = Recorded()
    pool = local._Pool(jobs, make_slots(2, {'JAX_PLATFORMS': 'cpu'}), processes)
    pool._start()
    assert processes.started == [('teacher', '0,1'), ('a', '2,3')]
    processes.over = [('teacher', -9)]
    assert pool._reap()
    pool._start()
    assert processes.started[2:] == [('b', '0,1')]
    assert jobs[3].status['reason'] == 'it builds on teacher, which failed'


def test_a_second_process_at_a_trial_leaves_its_status_alone(tiny, make_job, capsys):
    job = make_job('held', tiny('gaussian', SHORT))
    state.update(job.folder.path, state='running', job='slurm:7')
    before = (job.folder.path / 'status.json').read_bytes()
    with runs.lock(job.folder):
        assert worker.main('trial', '', str(job.wanted), str(job.folder.path)) == 2
    assert 'Another process is training' in capsys.readouterr().err
    assert (job.folder.path / 'status.json').read_bytes() == before
