"""What tests of launchers share: jobs, studies, processes, and a SLURM cluster of this machine."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest

from genbench import config as configs
from genbench.studies import identity, state
from genbench.studies.job import Job
from genbench.studies.study import Trial
from genbench.training.files import write_atomically
from genbench.training.runs import Folder

PACKAGES = ('slurm-wlm', 'munge')
DAEMONS = ('munged', 'slurmctld', 'slurmd')
CONFIGURATION = """
ClusterName=genbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes={host} MaxTime=INFINITE State=DOWN
"""


def install() -> str:
    """Why SLURM is not to be had here; '' where it is."""
    found = [shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin') for name in DAEMONS]
    if all(found):
        return '' if os.getuid() == 0 else 'the daemons of SLURM want root'
    if os.getuid() != 0 or shutil.which('apt-get') is None:
        return f'SLURM is not installed, and cannot be without root and apt-get ({" ".join(PACKAGES)})'
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL, 'stdin': subprocess.DEVNULL, 'timeout': 240}
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    try:
        subprocess.run(['apt-get', 'update', '-q'], **quiet, env=environment, check=False)
        command = ['apt-get', 'install', '-y', '-q', '--no-install-recommends', *PACKAGES]
        subprocess.run(command, **quiet, env=environment, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f'SLURM cannot be installed: {error}'
    return ''


class Cluster:
    """A controller and one node, with the files and ports of one folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> 'Cluster':
        self.folder.chmod(0o755)
        for name in ('state', 'spool'):
            (self.folder / name).mkdir()
        configuration = self.folder / 'slurm.conf'
        host, cpus = socket.gethostname().split('.')[0], os.cpu_count()
        ports = {'controller_port': free_port(), 'node_port': free_port()}
        configuration.write_text(CONFIGURATION.format(folder=self.folder, host=host, cpus=cpus, **ports))
        os.environ['SLURM_CONF'] = str(configuration)
        key = self.folder / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        munge = [f'--key-file={key}', f'--socket={self.folder}/munge.socket', f'--log-file={self.folder}/munge.log',
                 f'--pid-file={self.folder}/munge.pid', f'--seed-file={self.folder}/munge.seed']  # fmt: skip
        self._start('munged', '--foreground', '--force', *munge)
        wait_for(lambda: (self.folder / 'munge.socket').exists(), 'munged')
        self._start('slurmctld', '-D', '-f', str(configuration))
        self._start('slurmd', '-D', '-f', str(configuration), '-N', host)
        wait_for(lambda: 'idle' in self.ask('sinfo', '--noheader', '--partition=main', '--format=%T'), 'the node')
        return self

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
        with (self.folder / f'{name}.out').open('w') as log:
            self._daemons.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log))

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.ask('scancel', '--signal=KILL', '--full', '--partition=main')
            self.ask('scancel', '--user=root')
            wait_for(lambda: not self.ask('squeue', '--noheader', '--states=running,completing').strip(), 'jobs', 20)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        os.environ.pop('SLURM_CONF', None)

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints."""
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def job(self, number: str) -> dict[str, str]:
        """What scontrol says of a job."""
        words = self.ask('scontrol', 'show', 'job', '--oneliner', number).split()
        return dict(word.split('=', 1) for word in words if '=' in word)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def wait_for(condition, what: str, seconds: float = 60):
    """The first true value of `condition()`, asked a few times a second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.3)
    raise TimeoutError(f'{what} did not come in {seconds:.0f} s')


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    """A running cluster; the test is skipped where there can be none."""
    pytest.importorskip('submitit')
    reason = install()
    if reason:
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp('slurm')) as running:
        yield running


@pytest.fixture
def make_job(tmp_path):
    """`make_job(name, config, after=…)` → a Job whose folder is ready to be launched."""

    def make(name, config, **more):
        folder = Folder(tmp_path / 'trials' / name)
        job = Job(Trial(name, 'none.py', **more), config, folder, f'id-{name}')
        hashes = {'training': '', 'evaluation': '', 'code': ''}
        write_atomically(folder.path / identity.FILE, json.dumps({'trial_id': job.trial_id, **hashes}))
        write_atomically(job.wanted, configs.to_json(config))
        return job

    return make


@pytest.fixture
def study_file(tmp_path):
    """`study_file({name: (config, what a Trial takes beside)})` → the path of a study file."""

    def write(trials):
        written = []
        for name, (config, more) in trials.items():
            path = tmp_path / f'{name}.py'
            path.write_text(f'def get_config():\n    return {configs.plain(config)!r}\n')
            written.append(f'Trial({name!r}, {str(path)!r}{"".join(f", {key}={more[key]!r}" for key in more)})')
        file = tmp_path / 'study.py'
        file.write_text(
            'from genbench.studies.study import Study, Trial\n\n\ndef get_study():\n'
            f"    return Study(title='A study', claim='It runs.', trials=({', '.join(written)},))\n"
        )
        return str(file)

    return write


def genbench(*words, **environment):
    """A started `genbench` whose outputs are pipes of text."""
    return subprocess.Popen(
        [sys.executable, '-m', 'genbench', *map(str, words)], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture
def start():
    """`start(*words, **environment)` → a `genbench` of its own process, which ends with the test."""
    started = []

    def begin(*words, **environment):
        started.append(genbench(*words, **environment))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def statuses(start):
    """`statuses(folder)` → {trial: row} as another process sees them."""

    def ask(folder):
        process = start('status', folder, '--json')
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return {row['trial']: row for row in json.loads(out)}

    return ask


@pytest.fixture
def wait():
    """`wait_for`, for tests."""
    return wait_for


@pytest.fixture
def wait_for_step():
    """`wait_for_step(folder, step)` → when a trial has logged this step."""

    def wait(folder, step, seconds=120):
        return wait_for(
            lambda: state.last_row(folder / 'metrics.jsonl').get('step', 0) >= step, f'step {step}', seconds
        )

    return wait
