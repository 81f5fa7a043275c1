"""A process that has already imported everything a trial needs, so it forks a trial in milliseconds, not seconds.

It reads one JSON object per line. For `{"name", "log", "environment", "arguments"}` it forks a child that runs
`genbench.studies.worker`. It answers `{"name", "pid"}` and, when the child has ended, `{"name", "code"}` (minus the
signal if one killed it). `{"signal": NUMBER}` is sent to all children. Its input ends when the process that started it
is gone; it then tells the children to save and stop. If it is killed itself, they notice and do the same.

Forking is safe because the parent only imports: it has not opened any jax device or started any Python thread.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import sys
import threading
import time
import traceback
import warnings
from typing import Any, NoReturn

POLL_SECONDS = 0.05
# Modules that every trial imports sooner or later. `genbench.families` finds its own modules.
MODULES = (
    'genbench.evaluation.harness',
    'genbench.training.loop',
    'genbench.studies.identity',
    'genbench.data.digits',
    'tensorflow_datasets',
    'threadpoolctl',
)


def preload() -> None:
    """Import what trials use."""
    for name in MODULES:
        importlib.import_module(name)
    from orbax.checkpoint import v1  # noqa: F401

    from genbench import families
    from genbench.training import metrics

    families.names()  # imports every family
    metrics.tensorboard()
    gc.freeze()  # children share what exists now


class Nursery:
    """The main loop of the process."""

    def __init__(self, channel: int):
        self._channel = channel
        self._children: dict[int, str] = {}
        self._buffer = b''
        self._end, self._life = os.pipe()  # only this process has the second end, so the pipe closes when it dies

    def run(self) -> int:
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        listening = True
        while listening or self._children:
            if listening and selector.select(POLL_SECONDS):
                listening = self._listen()
                if not listening:
                    self._signal(signal.SIGTERM)
            elif not listening:
                time.sleep(POLL_SECONDS)
            self._reap()
        return 0

    def _listen(self) -> bool:
        found = os.read(0, 65536)
        *lines, self._buffer = (self._buffer + found).split(b'\n')
        for line in lines:
            request = json.loads(line)
            if 'signal' in request:
                self._signal(request['signal'])
            else:
                self._fork(**request)
        return bool(found)

    def _fork(self, name: str, log: str, environment: dict[str, str], arguments: list[str]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become(log, environment, arguments)
        self._children[pid] = name
        self._say(name=name, pid=pid)

    def _become(self, log: str, environment: dict[str, str], arguments: list[str]) -> NoReturn:
        """Turn the child into a worker, as if it had been started on its own."""
        code = 1
        try:
            os.setsid()
            file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.close(self._channel)
            os.close(self._life)
            threading.Thread(target=_stop_after, args=(self._end,), daemon=True).start()
            os.environ.update(environment)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            from genbench.studies import worker

            code = worker.main(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self._children.pop(pid, '')
            self._say(name=name, code=os.waitstatus_to_exitcode(status))

    def _signal(self, number: int) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _say(self, **values: Any) -> None:
        try:
            os.write(self._channel, (json.dumps(values) + '\n').encode())
        except BrokenPipeError:
            return  # the process that started this one is gone; the end of the input also shows it


def _stop_after(end: int) -> None:
    """Tell this process to save and stop once nobody holds the other end of a pipe."""
    os.read(end, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    # From Python 3.12 on, forking warns if libraries have threads. OpenBLAS's threads survive a fork.
    warnings.filterwarnings('ignore', category=DeprecationWarning, message='.*fork')
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher handles Ctrl-C
    channel = os.dup(1)
    os.set_inheritable(channel, False)
    os.dup2(2, 1)  # the output of an import is not an answer
    preload()
    return Nursery(channel).run()


if __name__ == '__main__':
    sys.exit(main())
