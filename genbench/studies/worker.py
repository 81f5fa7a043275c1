"""The processes of a study: one trial (train, evaluate, report its status), or the bounds from real images."""

import functools
import os
import pathlib
import signal
import sys
import threading
import time
import traceback
from typing import Any

from genbench.errors import INTERRUPTED, Busy, UserError
from genbench.studies import state

BEAT_SECONDS = 3.0


def main(job: str, cores: str, *arguments: str) -> int:
    """Do one job of a study. It runs in a process of its own, which holds the devices.

    `trial CORES WANTED FOLDER` trains and evaluates, `train` and `evaluate` do only one of the two, and
    `real CORES RESULTS WANTED…` scores real images.

    Args:
      cores: processors to run on, joined by commas; '' for all.

    Returns:
      The exit status, as for the command line: 0 for success, 1 for a bug, 2 for a mistake by the user, 75 if it was
      stopped and saved.
    """
    if cores:
        _keep_to({int(core) for core in cores.split(',')})
    return _real(*arguments) if job == 'real' else _trial(job, *arguments)


def _keep_to(cores: set[int]) -> None:
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, cores)
    import threadpoolctl

    threadpoolctl.threadpool_limits(len(cores))  # libraries that were loaded earlier have a thread for every core


def _real(results: str, *wanted: str) -> int:
    from genbench import config as configs
    from genbench import startup

    startup.prepare()
    from genbench.evaluation import bounds

    try:
        resolved = [configs.read(pathlib.Path(path)) for path in wanted]
        bounds.score_bounds(resolved, pathlib.Path(results))
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return 2
    return 0


def _trial(job: str, wanted: str, workdir: str) -> int:
    folder = pathlib.Path(workdir)
    previous = {sig: signal.signal(sig, _interrupt) for sig in (signal.SIGINT, signal.SIGTERM)}
    status = Status(folder)
    try:
        complete = _work(job, pathlib.Path(wanted), folder, status)
    except KeyboardInterrupt:
        return status.stopped()
    except Busy as error:
        print(f'genbench: {error}', file=sys.stderr, flush=True)
        return 2
    except UserError as error:
        print(f'genbench: {error}', file=sys.stderr, flush=True)
        return status.failed(str(error), 2)
    except Exception as error:
        traceback.print_exc()
        return status.failed(f'{type(error).__name__}: {error}', 1)
    finally:
        for sig, handler in previous.items():
            signal.signal(sig, handler)
    return status.end('done' if job != 'train' else 'running') if complete else status.stopped()


def _interrupt(*_: Any) -> None:
    for sig in (signal.SIGINT, signal.SIGTERM):  # one signal is enough; saving follows
        signal.signal(sig, signal.SIG_IGN)
    raise KeyboardInterrupt


def _work(job: str, wanted: pathlib.Path, folder: pathlib.Path, status: 'Status') -> bool:
    """Whether everything was done. False if it was stopped and saved."""
    from genbench import config as configs
    from genbench import startup
    from genbench.training import mesh, processes, runs

    if not status.silent:
        with runs.lock(runs.Folder(folder)):  # the lock protects the status of a trial that another process works on
            pass
    config = configs.read(wanted)
    startup.prepare(functools.partial(mesh.fitting, config))
    if job in ('trial', 'train'):
        status.begin('training', config.train.num_steps)
        processes.connect()
        from genbench.evaluation.monitor import train

        if not train(config, folder).complete:
            return False
    if job in ('trial', 'evaluate'):
        status.begin('evaluating', config.train.num_steps)
        if job == 'evaluate':
            processes.connect()
        processes.answer_sigterm()
        from genbench.evaluation import harness

        harness.evaluate(folder, cells=_grid(folder), report=status.evaluated)
    return True


def _grid(folder: pathlib.Path) -> list[str]:
    """The axes of the trial's evaluation, which the runner saved next to its config."""
    from genbench.studies import identity

    return identity.read(folder).get('grid', [])


class Status:
    """Writes the status of a trial from its own process: regularly while it runs, and once when it ends.

    The steps come from the training log. A thread reads it, so training never waits for it. If a trial has several
    processes, the first one writes.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder, self.silent = folder, os.environ.get('SLURM_PROCID', '0') != '0'
        self._over, self._writing = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._alive: dict[str, Any] = {}
        self._spent: dict[str, float] = state.read(folder)['seconds']  # by finished phase, over all attempts
        self._began, self._phase = time.monotonic(), ''

    def begin(self, phase: str, num_steps: int) -> None:
        """Start a phase of the work. The first one counts as an attempt."""
        first = self._thread is None and phase == 'training'
        attempts = state.read(self._folder)['attempts'] + (1 if first else 0)
        self._spent, self._began, self._phase = self._seconds(), time.monotonic(), phase
        self._alive = {'state': 'running', 'phase': phase, 'host': state.host(), 'job': _job()}
        self._write(num_steps=num_steps, attempts=attempts, reason='', last_lines=[], **self._alive)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()

    def evaluated(self, done: int, total: int) -> None:
        """Record how many parts of the evaluation are done."""
        self._alive = {**self._alive, 'part': f'{done}/{total}'}

    def _seconds(self) -> dict[str, float]:
        """The time its phases have taken so far."""
        if not self._phase:
            return self._spent
        now = self._spent.get(self._phase, 0.0) + time.monotonic() - self._began
        return {**self._spent, self._phase: round(now, 1)}

    def stopped(self) -> int:
        self._end()
        step = self._step()
        self._write(state='preempted', phase='', step=step, reason=f'stopped and saved at step {step}')
        return INTERRUPTED

    def failed(self, reason: str, code: int) -> int:
        self._end()
        if not self.silent:
            self._write(step=self._step())
            state.fail(self._folder, reason)
        return code

    def end(self, name: str) -> int:
        self._end()
        self._write(state=name, phase='', step=self._step())
        return 0

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._write(step=self._step(), **self._alive)

    def _end(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _step(self) -> int:
        return state.last_row(self._folder / 'metrics.jsonl').get('step', 0)

    def _write(self, **changes: Any) -> None:
        if not self.silent:
            with self._writing:
                state.update(self._folder, seconds=self._seconds(), **changes)


def _job() -> str:
    """What runs this: a job of the cluster, or a process on this machine."""
    for array, index in (('SLURM_ARRAY_JOB_ID', 'SLURM_ARRAY_TASK_ID'), ('SLURM_JOB_ID', '')):
        if 'SLURM_PROCID' in os.environ and array in os.environ:
            return 'slurm:' + os.environ[array] + (f'_{os.environ[index]}' if index else '')
    return f'local:{os.getpid()}'


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
