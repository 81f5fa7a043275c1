"""Run what is missing of a study, several trials at a time, each in a process of its own."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from genbench import config as configs
from genbench.config import Config
from genbench.errors import UserError, explained_disk_errors
from genbench.studies import study as studies
from genbench.training.files import write_atomically
from genbench.training.metrics import read_rows
from genbench.training.runs import Folder, commit

POLL_SECONDS = 0.2
SAY_SECONDS = 10.0


@dataclasses.dataclass
class Job:
    """A trial on its way."""

    trial: studies.Trial
    config: Config
    folder: Folder
    process: subprocess.Popen | None = None
    slot: int = -1

    @property
    def wanted(self) -> pathlib.Path:
        """The resolved config that the trial's process reads."""
        return self.folder.path / 'wanted.json'

    @property
    def status(self) -> dict[str, Any]:
        path = self.folder.path / 'status.json'
        return json.loads(path.read_text()) if path.is_file() else {'state': 'queued', 'reason': ''}

    @property
    def done(self) -> bool:
        """Trained and evaluated under this very config."""
        if self.status['state'] != 'done' or not self.folder.config.is_file():
            return False
        return configs.from_json(self.folder.config.read_text()) == self.config

    @property
    def progress(self) -> str:
        state = self.status['state']
        if state != 'training':
            return state
        rows = read_rows(self.folder.metrics)
        return f'step {rows[-1]["step"] if rows else 0} of {self.config.train.num_steps}'


@explained_disk_errors()
def run(path: str, out: str, *, jobs: int = 0) -> bool:
    """Train and evaluate the trials of a study that are not done, then write its results and its page.

    Returns:
      True when everything is done, False when it was interrupted; the same call goes on from there.

    Raises:
      UserError: before anything starts, for a config that does not resolve; at the end, for trials that failed.
    """
    study, folder = studies.load(path), pathlib.Path(out)
    trials = folder / 'trials'
    try:
        trials.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'The study folder {folder} cannot be written: {error.strerror}.') from None
    queue = [Job(trial, studies.resolve(trial, trials), Folder(trials / trial.name)) for trial in study.trials]
    for job in queue:
        job.folder.path.mkdir(exist_ok=True)
        if not job.done:
            write_atomically(job.wanted, configs.to_json(job.config))
    _describe(folder, study, path)
    if not (folder / 'real.jsonl').is_file() or not all(job.done for job in queue):
        _score_real(folder, queue)
    interrupted = _Pool(queue, jobs or _default_jobs()).work()
    _collect(folder, queue)
    from genbench.report import page

    written = page.write(str(folder))
    if interrupted:
        print(f'Stopped and saved; the same command goes on from there. So far: {written}')
        return False
    failed = [job for job in queue if not job.done]
    if failed:
        first = failed[0]
        raise UserError(f'{len(failed)} of {len(queue)} trials failed; {first.trial.name}: {first.status["reason"]} '
                        f'(log: {first.folder.path / "log.txt"}). The page {written} shows the rest.')  # fmt: skip
    print(f'{len(queue)} trials done: {written}')
    return True


def _default_jobs() -> int:
    """One a core where jax computes on the CPU; one in all where an accelerator is to be shared."""
    accelerators = ('/dev/nvidia0', '/dev/accel0', '/dev/vfio/0', '/dev/kfd')
    if any(pathlib.Path(device).exists() for device in accelerators):
        return 1
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)


def _describe(folder: pathlib.Path, study: studies.Study, path: str) -> None:
    description = {
        'title': study.title,
        'claim': study.claim,
        'study': path,
        'trials': [trial.name for trial in study.trials],
        'command': f'genbench run {path} --out {folder}',
        'commit': commit(),
    }
    write_atomically(folder / 'study.json', json.dumps(description, indent=2) + '\n')


def _score_real(folder: pathlib.Path, queue: list[Job]) -> None:
    """The floor: test images scored as if they were samples, once for each data set of the study.

    In a process of its own: an accelerator belongs to the first process that asks for it, and trials come after.
    """
    command = _worker('real', '', folder / 'real.jsonl', *[job.wanted for job in queue])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f'Real images cannot be scored: {done.stderr.strip().splitlines()[-1]}')


def _worker(*arguments: object) -> list[str]:
    return [sys.executable, '-m', 'genbench.studies.worker', *map(str, arguments)]


class _Pool:
    """Starts jobs as slots come free; on CPU a slot is a core."""

    def __init__(self, queue: list[Job], slots: int):
        self._waiting = [job for job in queue if not job.done]
        self._jobs, self._free = queue, list(range(slots))
        self._running: list[Job] = []
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
        used = max(1, min(slots, len(self._waiting)))
        share = len(cores) // used
        self._cores = [cores[slot * share : (slot + 1) * share] if slots > 1 else [] for slot in range(slots)]
        self._stop = False
        self._began = self._said = time.monotonic()

    def work(self) -> bool:
        """Until all have ended; True when interrupted."""
        previous = {sig: signal.signal(sig, self._interrupt) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self._running or (self._waiting and not self._stop):
                self._start()
                self._reap()
                self._say()
                time.sleep(POLL_SECONDS)
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)
        return self._stop

    def _interrupt(self, *_: Any) -> None:
        self._stop = True
        for job in self._running:
            if job.process is not None:
                job.process.send_signal(signal.SIGINT)

    def _start(self) -> None:
        if self._stop:
            return
        states = {job.trial.name: job for job in self._jobs}
        for job in list(self._waiting):
            before = [states[name] for name in job.trial.after]
            if any(other not in self._waiting + self._running and not other.done for other in before):
                self._waiting.remove(job)
                self._mark(job, f'{job.trial.after[0]} failed, which it builds on')
            elif self._free and all(other.done for other in before):
                self._waiting.remove(job)
                self._launch(job)

    def _mark(self, job: Job, reason: str) -> None:
        write_atomically(job.folder.path / 'status.json', json.dumps({'state': 'failed', 'reason': reason}) + '\n')

    def _launch(self, job: Job) -> None:
        job.slot = self._free.pop(0)
        write_atomically(job.folder.path / 'status.json', json.dumps({'state': 'starting', 'reason': ''}) + '\n')
        cores = ','.join(map(str, self._cores[job.slot]))
        with (job.folder.path / 'log.txt').open('a') as log:
            job.process = subprocess.Popen(
                _worker('trial', cores, job.wanted, job.folder.path),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._running.append(job)

    def _reap(self) -> None:
        for job in list(self._running):
            code = job.process.poll() if job.process else 0
            if code is None:
                continue
            self._running.remove(job)
            self._free.append(job.slot)
            if job.status['state'] not in ('done', 'failed', 'interrupted'):
                self._mark(job, f'its process ended with status {code}')
            self._said = 0.0

    def _say(self) -> None:
        """A line every few seconds, and one whenever a trial ends."""
        if time.monotonic() - self._said < SAY_SECONDS:
            return
        self._said = time.monotonic()
        shown = '; '.join(f'{job.trial.name} {job.progress}' for job in self._jobs)
        print(f'[{self._said - self._began:4.0f} s] {shown}', file=sys.stderr, flush=True)


def _collect(folder: pathlib.Path, queue: list[Job]) -> None:
    """results.jsonl of the study: the rows of all trials, each with its trial's name."""
    rows = [{'trial': 'real', **row} for row in read_rows(folder / 'real.jsonl')]
    for job in queue:
        rows += [{'trial': job.trial.name, **row} for row in read_rows(job.folder.results)]
    write_atomically(folder / 'results.jsonl', ''.join(json.dumps(row) + '\n' for row in rows))
