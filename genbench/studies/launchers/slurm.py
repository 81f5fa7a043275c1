"""Run trials as jobs of a SLURM cluster, submitted as arrays through submitit."""

import dataclasses
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.errors import UserError
from genbench.studies import state, status
from genbench.studies.job import Job
from genbench.studies.launchers import base, squeue
from genbench.studies.launchers.task import Task

POLL_SECONDS = 2.0
SIGNAL_SECONDS = 90  # SLURM signals a job to save this long before its time limit
# Names in flags and studies → submitit's names. Other names go to sbatch unchanged.
KEYS = {
    'partition': 'partition',
    'time': 'time',
    'nodes': 'nodes',
    'gpus': 'gpus_per_node',
    'cpus': 'cpus_per_task',
    'account': 'account',
}
_NUMBERS = ('nodes', 'gpus', 'cpus', 'ntasks-per-node')


@dataclasses.dataclass(frozen=True)
class Options:
    """How a study uses the cluster.

    Attributes:
      resources: for each trial, by the names in `KEYS` or sbatch's long options, such as mem or qos.
      wait: wait until all have ended; otherwise only submit.
      start_timeout: seconds after which a job that has not started is cancelled and its trial fails; 0 for never.
    """

    resources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wait: bool = True
    start_timeout: float = 0.0


def parse(words: Sequence[str]) -> dict[str, str]:
    """Parse resources from 'KEY=VALUE' words.

    Raises:
      UserError: a word does not have this form.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition('=')
        if not equals or not re.fullmatch(r'[a-z][a-z-]*', key):
            raise UserError(f'--slurm is {word!r}; write KEY=VALUE for a long option of sbatch, for example mem=32G.')
        found[key] = value
    return found


class Slurm:
    """The launcher of a cluster.

    Args:
      folder: of the study, on a file system that all nodes share.

    Raises:
      UserError: sbatch or submitit is missing.
    """

    interruption = ''

    def __init__(self, folder: pathlib.Path, options: Options | None = None):
        if shutil.which('sbatch') is None or shutil.which('srun') is None:
            raise UserError('--launcher=slurm needs sbatch and srun on the PATH. Start it on a login node of the '
                            'cluster, or remove --launcher to use this machine.')  # fmt: skip
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError("--launcher=slurm needs submitit: pip install -e '.[slurm]'.") from None
        self._folder, self._options = folder.absolute(), options or Options()
        _check(self._options.resources)

    def launch(self, jobs: Sequence[Job], floor: Sequence[str] = ()) -> bool:
        todo = [job for job in jobs if not job.done]
        known = squeue.read()
        if known is None:
            raise UserError('SLURM does not answer (squeue); try again later.')
        there = [job for job in todo if squeue.holds(known.get(_number(job)))]
        missing = [job for job in todo if job not in there]
        self._submit(missing, {job.name: _number(job) for job in there}, {job.name: job for job in jobs})
        self.interruption = (f'{len(there) + len(missing)} trials are in the SLURM queue. They continue without this '
                             f'command: genbench status {self._folder} shows them. Repeat the command to wait for them '
                             'and collect their results.')  # fmt: skip
        if not self._options.wait:  # the call that waits also scores real images
            return any(not job.done for job in todo)
        with _Floor(floor, self._options) as real:
            return self._wait(todo, real)

    def _submit(self, jobs: Sequence[Job], numbers: dict[str, str], known: Mapping[str, Job]) -> None:
        """Submit one array for each set of trials with the same dependencies, those without dependencies first."""
        waiting = list(jobs)
        while waiting:
            groups: dict[tuple[str, ...], list[Job]] = {}
            for job in list(waiting):
                before = [name for name in job.after if not _is_done(name, job, known)]
                if all(name in numbers for name in before):
                    waiting.remove(job)
                    groups.setdefault(tuple(numbers[name] for name in before), []).append(job)
            if not groups:
                for job in waiting:
                    state.fail(job.folder.path, f'it builds on {job.after[0]}, which is not done')
                return
            for needed, group in groups.items():
                numbers |= self._submit_array(group, needed)

    def _submit_array(self, jobs: Sequence[Job], before: Sequence[str]) -> dict[str, str]:
        """{trial: job number} of the submitted trials. They start when the jobs `before` have succeeded."""
        import submitit
        from submitit.core import utils

        executor = submitit.SlurmExecutor(folder=self._folder / 'slurm' / '%j')
        for job in jobs:
            state.queue(job.folder.path, num_steps=job.config.train.num_steps, trial_id=job.trial_id)
        tasks = [Task(str(job.wanted.absolute()), str(job.folder.path.absolute())) for job in jobs]
        try:
            executor.update_parameters(**self._parameters(before))
            submitted = executor.map_array(Task.__call__, tasks)
        except (utils.FailedJobError, utils.FailedSubmissionError) as error:
            raise UserError(f'SLURM rejected the jobs: {_said(error)}') from None
        numbers = {job.name: one.job_id for job, one in zip(jobs, submitted, strict=True)}
        for job in jobs:
            if state.read(job.folder.path)['state'] == 'queued':  # otherwise the job has already recorded it
                state.update(job.folder.path, job=f'slurm:{numbers[job.name]}')
        return numbers

    def _parameters(self, before: Sequence[str]) -> dict[str, Any]:
        given = dict(self._options.resources)
        own = {KEYS[key]: int(given.pop(key)) if key in _NUMBERS else given.pop(key) for key in KEYS if key in given}
        per_node = int(given.pop('ntasks-per-node', 1))
        more: dict[str, Any] = {'requeue': True, **given}
        if before:
            more |= {'dependency': f'afterok:{":".join(before)}', 'kill-on-invalid-dep': 'yes'}
        return {
            'job_name': f'genbench-{self._folder.name}',
            'time': None,  # the default of the partition
            'signal_delay_s': SIGNAL_SECONDS,
            'ntasks_per_node': per_node,
            'srun_args': ['--kill-on-bad-exit=1'],
            'additional_parameters': more,
            **own,
        }

    def _wait(self, jobs: Sequence[Job], real: '_Floor') -> bool:
        """Wait until all have ended. True if interrupted; the jobs go on."""
        began, stop = time.monotonic(), _Stop()
        with stop, status.Display([job.folder.path for job in jobs]) as display:
            while not stop.asked:
                known = squeue.read()
                if known is not None:
                    over = [self._settle(job, known, time.monotonic() - began) for job in jobs]
                    if all(over) and real.over():
                        return False
                display.show()
                stop.sleep(POLL_SECONDS)
        return True

    def _settle(self, job: Job, known: Mapping[str, squeue.Entry], seconds: float) -> bool:
        """Whether a trial has ended. Records in its folder what its process could not."""
        path = job.folder.path
        now = state.read(path)
        if now['state'] in ('done', 'failed'):
            return True
        changes = squeue.judge(now, known) if now['job'] else {}
        if changes.get('state') == 'failed':
            time.sleep(0.5)  # its last write may still be in transit
            if state.read(path)['state'] not in ('done', 'failed'):
                state.fail(path, self._builds_on(job) or changes['reason'])
            return True
        entry = known.get(_number(job))
        limit = self._options.start_timeout
        if limit and seconds > limit and now['state'] == 'queued' and entry and _stuck(entry):
            _cancel(_number(job))
            state.fail(path, f'its job did not start within {status.duration(limit)} and was cancelled: '
                             f'it {squeue.waiting(_number(job), entry)}')  # fmt: skip
            return True
        return False

    def _builds_on(self, job: Job) -> str:
        failed = [name for name in job.after if state.read(job.folder.path.parent / name)['state'] == 'failed']
        return f'it builds on {failed[0]}, which failed' if failed else ''


class _Floor:
    """A context in which a step in its own job scores real images while the trials run."""

    def __init__(self, words: Sequence[str], options: Options):
        self._words, self._options = words, options
        self._step: subprocess.Popen | None = None
        self._began = time.monotonic()

    def __enter__(self) -> '_Floor':
        if self._words:
            self._log = base.floor_log(self._words)
            with self._log.open('w') as log:
                command = ['srun', *self._flags(), '--job-name=genbench-real', *base.worker(*self._words)]
                self._step = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def _flags(self) -> list[str]:
        one = {'nodes': '1', 'ntasks': '1'}
        names = {'gpus': 'gpus-per-node', 'cpus': 'cpus-per-task', 'ntasks-per-node': 'ntasks'}
        given = {names.get(key, key): value for key, value in self._options.resources.items()}
        return [f'--{key}={value}' for key, value in {**given, **one}.items()]

    def over(self) -> bool:
        """Whether it has ended, or has waited too long to start. Raise a UserError if it failed."""
        if self._step is None:
            return True
        code, limit = self._step.poll(), self._options.start_timeout
        if code is None:
            return bool(limit) and time.monotonic() - self._began > limit and self._waits()
        base.check_floor(code, self._log)
        return True

    def _waits(self) -> bool:
        lines = state.last_lines(self._log)
        return (
            bool(lines) and lines[-1].startswith('srun: job') and lines[-1].endswith('queued and waiting for resources')
        )

    def __exit__(self, *_: object) -> None:
        if self._step is not None and self._step.poll() is None:
            self._step.terminate()
            self._step.wait()


class _Stop:
    """A context in which Ctrl-C and SIGTERM end the waiting at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> '_Stop':
        self._previous = {sig: signal.signal(sig, self._ask) for sig in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for sig, handler in self._previous.items():
            signal.signal(sig, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.asked and time.monotonic() < end:
            time.sleep(0.1)


def _check(resources: Mapping[str, str]) -> None:
    for key in _NUMBERS:
        if key in resources and not str(resources[key]).isdigit():
            raise UserError(f'{key} of a SLURM job is {resources[key]!r}; it should be an integer.')


def _is_done(name: str, job: Job, known: Mapping[str, Job]) -> bool:
    """Whether a trial that another one depends on is done, even if it is not among the launched jobs."""
    if name in known:
        return known[name].done
    return state.read(job.folder.path.parent / name)['state'] == 'done'


def _number(job: Job) -> str:
    return state.read(job.folder.path)['job'].partition(':')[2]


def _stuck(entry: squeue.Entry) -> bool:
    return entry.state in squeue.WAITING and entry.reason not in ('Dependency', 'JobArrayTaskLimit')


def _cancel(number: str) -> None:
    subprocess.run(['scancel', number], timeout=60, check=False, capture_output=True)


def _said(error: Exception) -> str:
    """The line from sbatch in submitit's error message."""
    lines = [line.partition('error:')[2].strip() for line in str(error).splitlines() if 'error:' in line]
    return '; '.join(line for line in lines if line) or ' '.join(str(error).split())
