"""Run trials as processes on this machine, several at a time. A slot is an accelerator or, on CPU, a core."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from genbench.errors import UserError
from genbench.studies import state
from genbench.studies.job import Job
from genbench.studies.launchers import base
from genbench.studies.status import Display

POLL_SECONDS = 0.1
SAVING_SECONDS = 60  # time for a trial to save after the process that forked it is gone


class Local:
    """The launcher of one machine.

    Args:
      slots: trials at a time; 0 for one per accelerator or, on CPU, one per core.
      trials: number of trials in the whole study, which determines each one's share of the cores; 0 for the number of
        launched jobs.
    """

    interruption = 'Stopped and saved. Repeat the command to continue.'

    def __init__(self, slots: int = 0, trials: int = 0):
        self._slots, self._trials = make_slots(slots), trials

    def launch(self, jobs: Sequence[Job], floor: Sequence[str] = ()) -> bool:
        if not floor and all(job.done for job in jobs):
            return False
        with _Processes() as processes:
            if floor:  # alone and first, because it trains the network that scores the trials
                self._score_real(processes, floor)
            return _Pool(jobs, self._slots, processes, self._trials).work()

    def _score_real(self, processes: '_Processes', floor: Sequence[str]) -> None:
        log = base.floor_log(floor)
        processes.start('real', log, self._slots[0].environment, *floor)
        while not (ended := list(processes.ended())):
            time.sleep(POLL_SECONDS)
        base.check_floor(ended[0][1], log)


@dataclasses.dataclass
class Slot:
    """A place for one trial.

    Attributes:
      environment: variables that tell jax which device to use.
    """

    environment: dict[str, str]
    cores: list[int] = dataclasses.field(default_factory=list)
    job: Job | None = None


def make_slots(number: int = 0, environment: Mapping[str, str] = os.environ, dev: str = '/dev') -> list[Slot]:
    """Slots with one device each. If there are more slots than devices, slots share a device and its memory."""
    devices = _nvidia(environment, pathlib.Path(dev))
    if not devices:
        return [Slot({}) for _ in range(number or (1 if _other(environment, pathlib.Path(dev)) else len(_cores())))]
    number = number or len(devices)
    sharing = -(-number // len(devices))
    share = {'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{0.9 / sharing:.2f}'} if sharing > 1 else {}
    return [Slot({'CUDA_VISIBLE_DEVICES': devices[i % len(devices)], **share}) for i in range(number)]


def _nvidia(environment: Mapping[str, str], dev: pathlib.Path) -> list[str]:
    """The names in CUDA_VISIBLE_DEVICES of the devices that this process may use."""
    if environment.get('JAX_PLATFORMS', '').startswith('cpu'):
        return []
    number = len([path for path in dev.glob('nvidia*') if path.name[len('nvidia') :].isdigit()])
    given = environment.get('CUDA_VISIBLE_DEVICES')
    return [name for name in given.split(',') if name] if given is not None else [str(i) for i in range(number)]


def _other(environment: Mapping[str, str], dev: pathlib.Path) -> bool:
    """Whether there is an accelerator whose devices cannot be assigned one by one. Each trial then uses all of them."""
    if environment.get('JAX_PLATFORMS', '').startswith('cpu'):
        return False
    return any((dev / name).exists() for name in ('accel0', 'vfio/0', 'kfd'))


def has_accelerator(environment: Mapping[str, str] = os.environ, dev: str = '/dev') -> bool:
    return bool(_nvidia(environment, pathlib.Path(dev))) or _other(environment, pathlib.Path(dev))


def _cores() -> list[int]:
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class _Pool:
    """Starts jobs as slots become free."""

    def __init__(self, jobs: Sequence[Job], slots: list[Slot], processes: '_Processes', trials: int = 0):
        self._jobs, self._slots, self._processes = jobs, slots, processes
        self._waiting = [job for job in jobs if not job.done]
        self._cores = _cores()
        self._share = max(1, len(self._cores) // max(1, min(len(slots), trials or len(self._waiting))))
        self._stops = 0
        for job in self._waiting:
            state.queue(job.folder.path, num_steps=job.config.train.num_steps, trial_id=job.trial_id)

    def work(self) -> bool:
        """Work until all jobs have ended. True if interrupted."""
        previous = {sig: signal.signal(sig, self._interrupt) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            with Display([job.folder.path for job in self._jobs]) as display:
                while self._running() or (self._waiting and not self._stops):
                    self._start()
                    ended = self._reap()
                    display.show(now=ended)
                    time.sleep(POLL_SECONDS)
        except UserError:  # the processes are gone
            for slot in self._running():
                self._settle(slot)
            raise
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)
        return bool(self._stops)

    def _interrupt(self, *_: Any) -> None:
        """The first interrupt makes trials save and stop, the second kills them."""
        self._stops += 1
        self._processes.signal(signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    def _running(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.job is not None]

    def _start(self) -> None:
        if self._stops:
            return
        ready = []
        for job in list(self._waiting):
            before = [self._before(name, job) for name in job.after]
            failed = [name for name, how in zip(job.after, before, strict=True) if how == 'failed']
            if failed:
                self._waiting.remove(job)
                state.fail(job.folder.path, f'it builds on {failed[0]}, which failed')
            elif all(how == 'done' for how in before):
                ready.append(job)
        ready.sort(
            key=lambda job: not any(job.name in other.after for other in self._waiting)
        )  # awaited jobs come first
        free = [slot for slot in self._slots if slot.job is None]
        for slot, job in zip(free, ready, strict=False):
            self._launch(slot, job)

    def _before(self, name: str, job: Job) -> str:
        """Whether a trial that another one depends on is 'done', 'failed', or 'running' (including not yet started)."""
        known = {other.name: other for other in self._jobs}
        if name not in known:
            return 'done' if state.read(job.folder.path.parent / name)['state'] == 'done' else 'failed'
        other = known[name]
        if other in self._waiting or any(slot.job is other for slot in self._slots):
            return 'running'
        return 'done' if other.done else 'failed'

    def _launch(self, slot: Slot, job: Job) -> None:
        """Start a job on its share of the cores, choosing the least busy ones.

        All jobs get the same number of cores, even the last one. On CPU another number would mean other compiled
        programs, and sums in another order.
        """
        taken = [core for other in self._slots if other.job is not None for core in other.cores]
        slot.cores = sorted(self._cores, key=lambda core: (taken.count(core), core))[: self._share]
        slot.job = job
        self._waiting.remove(job)
        kept = ','.join(map(str, slot.cores)) if self._share < len(self._cores) else ''
        path = job.folder.path
        state.update(path, state='running', host=state.host())  # from here on, its own process writes
        self._processes.start(job.name, path / 'log.txt', slot.environment, 'trial', kept, job.wanted, path)

    def _reap(self) -> bool:
        """Free the slots of trials that have ended, and return whether there were any."""
        any_ended = False
        for name, code in self._processes.ended():
            (slot,) = [slot for slot in self._slots if slot.job is not None and slot.job.name == name]
            self._settle(slot, code)
            any_ended = True
        return any_ended

    def _settle(self, slot: Slot, code: int = -signal.SIGKILL) -> None:
        """Free a slot whose process has ended."""
        path = slot.job.folder.path if slot.job else pathlib.Path()
        slot.job, slot.cores = None, []
        if state.read(path)['state'] in ('queued', 'running'):
            self._mark(path, code)

    def _mark(self, path: pathlib.Path, code: int) -> None:
        """Record the end of a trial that could not do so itself."""
        if self._stops:
            step = state.last_row(path / 'metrics.jsonl').get('step', 0)
            state.update(path, state='preempted', phase='', step=step, reason='stopped')
        else:
            state.fail(path, state.ended(code))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # on Linux, an orphan without a waiting parent remains as a zombie
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return True


class _Processes:
    """The processes of the trials, forked by a `nursery`."""

    def __enter__(self) -> '_Processes':
        self._nursery = subprocess.Popen(
            [sys.executable, '-m', 'genbench.studies.launchers.nursery'],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._nursery.stdin and self._nursery.stdout
        self._requests, self._answers = self._nursery.stdin, self._nursery.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._buffer = b''
        self._pids: dict[str, int] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()  # this stops whatever still runs
        self._nursery.wait()
        self._answers.close()

    def start(self, name: str, log: pathlib.Path, environment: dict[str, str], *arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        try:
            self._ask(name=name, log=str(log), environment=environment, arguments=words)
        except BrokenPipeError:
            list(self._hear())
            self._give_up()

    def signal(self, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # `ended` will report it
            self._ask(signal=int(number))

    def ended(self) -> Iterator[tuple[str, int]]:
        """(name, exit status or minus the signal) of the trials that have ended since the last call."""
        over = self._nursery.poll() is not None  # check first, so that everything it said before is still read
        yield from self._hear()
        if over:
            self._give_up()

    def _hear(self) -> Iterator[tuple[str, int]]:
        while found := self._answers.read(65536):
            self._buffer += found
        *lines, self._buffer = self._buffer.split(b'\n')
        for line in lines:
            answer = json.loads(line)
            if 'pid' in answer:
                self._pids[answer['name']] = answer['pid']
            if 'code' in answer:
                self._pids.pop(answer['name'], None)
                yield answer['name'], answer['code']

    def _give_up(self) -> NoReturn:
        """Wait while the trials of a dead nursery save and stop, then raise a UserError that says so."""
        until = time.monotonic() + SAVING_SECONDS
        while any(map(_lives, self._pids.values())) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise UserError(f'The process that forks trials is gone: '
                        f'{state.ended(self._nursery.wait())}. The running trials have stopped. Repeat the command '
                        'to continue.')  # fmt: skip

    def _ask(self, **request: Any) -> None:
        self._requests.write((json.dumps(request) + '\n').encode())
