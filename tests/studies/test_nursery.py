"""Trials are forked from a process that may be forked: it only imported."""

import json
import os
import subprocess
import sys
import time

import pytest

from genbench.errors import UserError
from genbench.studies.launchers import local

CHECK = """
import os, threading, genbench.studies.launchers.nursery as nursery
nursery.preload()
from jax._src import xla_bridge
assert not xla_bridge._backends, 'a device of jax is open'
assert threading.active_count() == 1, threading.enumerate()
"""


def test_what_is_imported_before_trials_are_forked_opens_no_device_and_starts_no_thread():
    subprocess.run([sys.executable, '-c', CHECK], check=True, timeout=120)


@pytest.fixture
def nursery():
    command = [sys.executable, '-m', 'genbench.studies.launchers.nursery']
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    yield process
    process.stdin.close()
    process.wait(60)


def test_a_child_says_how_it_ended_and_writes_to_its_log(nursery, tmp_path):
    def ask(**request):
        nursery.stdin.write(json.dumps(request) + '\n')

    log = tmp_path / 'log.txt'
    ask(name='a', log=str(log), environment={}, arguments=['trial', '', str(tmp_path / 'none.json'), str(tmp_path)])
    started, ended = (json.loads(nursery.stdout.readline()) for _ in range(2))
    assert started['name'] == 'a' and started['pid'] != os.getpid()
    assert ended == {'name': 'a', 'code': 2}  # a file that is not there is one line
    assert 'none.json' in log.read_text()
    assert json.loads((tmp_path / 'status.json').read_text())['state'] == 'failed'


def test_a_child_stops_when_the_nursery_is_killed(nursery, tmp_path):
    """The child waits at a pipe, as a trial would be anywhere between two steps."""
    os.mkfifo(tmp_path / 'wanted.json')
    words = ['trial', '', str(tmp_path / 'wanted.json'), str(tmp_path / 'trial')]
    request = {'name': 'a', 'log': str(tmp_path / 'log.txt'), 'environment': {}, 'arguments': words}
    nursery.stdin.write(json.dumps(request) + '\n')
    child = json.loads(nursery.stdout.readline())['pid']
    nursery.kill()
    nursery.wait(10)
    end = time.monotonic() + 20
    while local._lives(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not local._lives(child)


def test_a_nursery_that_is_killed_is_one_line_and_its_trial_is_marked(tiny, make_job, monkeypatch):
    """One trial runs, another waits; in place of the nursery stands a process that says so and can be killed."""
    jobs = [make_job(name, tiny('gaussian')) for name in ('a', 'b')]
    trial = subprocess.Popen(['sleep', '600'])
    answer = json.dumps({'name': 'a', 'pid': trial.pid})
    stand_in = subprocess.Popen
    monkeypatch.setattr(
        local.subprocess, 'Popen', lambda _, **more: stand_in(['sh', '-c', f"echo '{answer}'; kill -9 $$"], **more)
    )
    monkeypatch.setattr(local, 'SAVING_SECONDS', 0.3)
    with pytest.raises(UserError, match='The process that forks trials is gone: .* SIGKILL.*Repeat the') as error:
        local.Local(1).launch(jobs)
    assert trial.wait(10) == -9
    assert len(str(error.value).splitlines()) == 1
    assert [job.status['state'] for job in jobs] == ['failed', 'queued']


@pytest.mark.slow
def test_children_stop_when_whoever_started_them_is_gone(nursery, tiny, make_job, wait_for_step):
    job = make_job('a', tiny('vae', 'train.num_steps=100000', 'train.log_every=10'))
    words = ['trial', '', str(job.wanted), str(job.folder.path)]
    request = {'name': 'a', 'log': str(job.folder.path / 'log.txt'), 'environment': {}, 'arguments': words}
    nursery.stdin.write(json.dumps(request) + '\n')
    wait_for_step(job.folder.path, 10)
    nursery.stdin.close()
    assert nursery.wait(60) == 0
    assert job.status['state'] == 'preempted' and job.status['step'] >= 10
