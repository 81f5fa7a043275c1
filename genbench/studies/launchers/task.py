"""What runs inside a SLURM job: this task's part of one trial. It imports little, so that it starts at once.

SLURM sends SIGTERM when it takes away a job's nodes or somebody cancels the job, and SIGUSR2 shortly before its time
limit. In either case the trial saves and ends with status 75. After SIGTERM, SLURM decides whether to start the job
again: it does so for a preempted or requeued job, not for a cancelled one. At the time limit, the job requeues itself.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from genbench.errors import INTERRUPTED
from genbench.studies import state

LINGER_SECONDS = 10.0  # for the first task to record the reason, before SLURM ends the job because another failed


class Stopped(Exception):
    """The trial saved and stopped. This is not success, so trials that depend on it keep waiting."""


class Failed(Exception):
    """The trial failed."""


class Task:
    """A trial as a function without arguments, which submitit stores in a file until SLURM starts it.

    A trial with one task trains and evaluates in one process. With several tasks, each one starts a process that trains
    with the others, and then another one that evaluates with them.
    """

    def __init__(self, wanted: str, folder: str):
        self._wanted, self._folder = wanted, folder

    def __call__(self) -> None:
        first = os.environ.get('SLURM_PROCID', '0') == '0'
        several = int(os.environ.get('SLURM_NTASKS', '1')) > 1
        process = _Process()
        for part in ('train', 'evaluate') if several else ('trial',):
            code = process.run(part, self._wanted, self._folder, first)
            if code:
                self._end(code, process, first)

    def _end(self, code: int, process: '_Process', first: bool) -> None:
        """Record why the trial ended, if it could not do so itself."""
        folder = pathlib.Path(self._folder)
        now = state.read(folder)['state']
        if code == INTERRUPTED or process.asked:
            if first and now != 'preempted':
                step = state.last_row(folder / 'metrics.jsonl').get('step', 0)
                state.update(folder, state='preempted', phase='', step=step, reason='stopped')
            if first and process.time_is_over:
                subprocess.run(['scontrol', 'requeue', _job_id()], timeout=60, check=False)
            raise Stopped('stopped and saved')
        if not first:
            time.sleep(LINGER_SECONDS)
        elif now != 'failed':
            state.fail(folder, state.ended(code))
        raise Failed(state.read(folder)['reason'] if first else state.ended(code))


class _Process:
    """The worker process, and the signals that arrive for it."""

    def __init__(self) -> None:
        self.asked = self.time_is_over = False
        self._worker: subprocess.Popen | None = None
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGUSR2, self._stop)

    def run(self, part: str, wanted: str, folder: str, first: bool) -> int:
        """Run the worker. The exit status, or minus the signal that ended it."""
        number = os.environ.get('SLURM_PROCID', '0')
        with open(pathlib.Path(folder) / ('log.txt' if first else f'log.{number}.txt'), 'a') as log:
            self._worker = subprocess.Popen(
                [sys.executable, '-m', 'genbench.studies.worker', part, '', wanted, folder],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_deaf,
            )  # fmt: skip
        if self.asked:
            self._worker.terminate()
        return self._worker.wait()

    def _stop(self, number: int, _: Any) -> None:
        self.asked = True
        self.time_is_over |= number == signal.SIGUSR2
        if self._worker is not None:
            self._worker.terminate()


def _deaf() -> None:
    """Ignore SIGUSR2. SLURM signals every process of a job, but only the task acts on it and tells the worker."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _job_id() -> str:
    array, index = os.environ.get('SLURM_ARRAY_JOB_ID'), os.environ.get('SLURM_ARRAY_TASK_ID')
    return f'{array}_{index}' if array else os.environ['SLURM_JOB_ID']
