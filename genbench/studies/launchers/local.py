"""Trials as processes of this machine, several at a time; on CPU a slot is a core."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from genbench.studies.job import Job
from genbench.studies.launchers.base import worker

POLL_SECONDS = 0.2
SAY_SECONDS = 10.0


class Local:
    """The launcher of one machine.

    Args:
      slots: trials at a time; 0 for one a core on CPU, else one.
    """

    def __init__(self, slots: int = 0):
        self._slots = slots or _default_slots()

    def launch(self, jobs: Sequence[Job]) -> bool:
        return _Pool(jobs, self._slots).work()


def _default_slots() -> int:
    """One a core where jax computes on the CPU; one in all where an accelerator is to be shared."""
    accelerators = ('/dev/nvidia0', '/dev/accel0', '/dev/vfio/0', '/dev/kfd')
    if any(pathlib.Path(device).exists() for device in accelerators):
        return 1
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)


class _Pool:
    """Starts jobs as slots come free."""

    def __init__(self, jobs: Sequence[Job], slots: int):
        self._waiting = [job for job in jobs if not job.done]
        self._jobs, self._free = jobs, list(range(slots))
        self._running: dict[str, tuple[Job, subprocess.Popen, int]] = {}
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
        for _job, process, _slot in self._running.values():
            process.send_signal(signal.SIGINT)

    def _start(self) -> None:
        if self._stop:
            return
        known = {job.name: job for job in self._jobs}
        for job in list(self._waiting):
            before = [known[name] for name in job.after]
            ended = [other for other in before if other not in self._waiting and other.name not in self._running]
            if any(not other.done for other in ended):
                self._waiting.remove(job)
                job.mark('failed', f'{job.after[0]} failed, which it builds on')
            elif self._free and len(ended) == len(before):
                self._waiting.remove(job)
                self._launch(job)

    def _launch(self, job: Job) -> None:
        slot = self._free.pop(0)
        job.mark('starting')
        cores = ','.join(map(str, self._cores[slot]))
        with (job.folder.path / 'log.txt').open('a') as log:
            process = subprocess.Popen(
                worker('trial', cores, job.wanted, job.folder.path),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._running[job.name] = (job, process, slot)

    def _reap(self) -> None:
        for job, process, slot in list(self._running.values()):
            code = process.poll()
            if code is None:
                continue
            del self._running[job.name]
            self._free.append(slot)
            if job.status['state'] not in ('done', 'failed', 'interrupted'):
                job.mark('failed', f'its process ended with status {code}')
            self._said = 0.0

    def _say(self) -> None:
        """A line every few seconds, and one whenever a trial ends."""
        if time.monotonic() - self._said < SAY_SECONDS:
            return
        self._said = time.monotonic()
        shown = '; '.join(f'{job.name} {job.progress}' for job in self._jobs)
        print(f'[{self._said - self._began:4.0f} s] {shown}', file=sys.stderr, flush=True)
