"""The lock of a folder in an object store, held by one process at a time and renewed by a thread.

The lock is an object that is created only if it does not exist. Stores cannot remove an object only if it is unchanged,
so a process that takes over an abandoned lock waits a moment and then looks whether the lock is still its own.
"""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
from typing import Any

from genbench.errors import Busy, UserError

LEASE = 600.0  # seconds without renewal after which a lock has expired
SETTLE = 1.0  # seconds for another process to finish removing a lock that it thought abandoned
LOCK = '.genbench-lock'


class Lease:
    """The lock of one folder.

    Attributes:
      lost: why this process no longer holds the lock, or ''. It never gets the lock back.
    """

    def __init__(self, store: Any, folder: str, address: str):
        self.lost = ''
        self._store, self._folder, self._address = store, folder, address
        self._lock = f'{folder}/{LOCK}'
        self._own = {'id': os.urandom(16).hex(), 'host': socket.gethostname(), 'place': _place(), 'pid': os.getpid()}
        self._over, self._thread = threading.Event(), threading.Thread(target=self._keep_renewing, daemon=True)

    def take(self) -> None:
        """Take the lock and keep it, or raise Busy with its holder."""
        for _ in range(2):
            with contextlib.suppress(FileExistsError):
                self._store.pipe_file(self._lock, self._text(), mode='create')
                time.sleep(SETTLE)
                if self._holder().get('id') == self._own['id']:
                    self._thread.start()
                    return
                break
            held = self._holder()
            if held and not self._is_left(held):
                raise Busy(f'{self._address} is in use by process {held.get("pid")} on {held.get("host")}; wait for it '
                           f'or stop it. If it is gone, delete {self._address}/{LOCK}.')  # fmt: skip
            if self._holder() == held:  # it may have been taken over while we looked at its age
                with contextlib.suppress(FileNotFoundError):
                    self._store.rm_file(self._lock)
        raise Busy(f'{self._address} was just taken by another process; wait for it or stop it.')

    def verify(self) -> None:
        """Read the lock, and raise a UserError if it is not, or was once not, that of this process."""
        held = {} if self.lost else self._holder()
        if held.get('id') != self._own['id']:
            taken = f'process {held.get("pid")} on {held.get("host")} took it over'
            self.lose(taken if held else 'its lock was removed')

    def lose(self, why: str) -> None:
        """Give the lock up for good, and raise a UserError that says why."""
        self.lost = self.lost or why
        self.check()

    def check(self) -> None:
        """Raise a UserError if the lock has been lost. Reads nothing from the store."""
        if self.lost:
            raise UserError(self.lost)

    def release(self) -> None:
        """Remove the lock if it is still ours."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._holder().get('id') == self._own['id']:
            self._store.rm_file(self._lock)

    def _keep_renewing(self) -> None:
        while not self._over.wait(LEASE / 10):
            with contextlib.suppress(Exception):  # the thread that sends files reports an unreachable store
                self.verify()
                self._store.pipe_file(self._lock, self._text())

    def _text(self) -> bytes:
        return json.dumps({**self._own, 'renewed': time.time()}).encode()

    def _holder(self) -> dict[str, Any]:
        """What the lock says; {} if there is none."""
        with contextlib.suppress(FileNotFoundError):
            with contextlib.suppress(ValueError):
                return dict(json.loads(self._store.cat_file(self._lock)))
            return {'host': 'an unknown machine'}
        return {}

    def _is_left(self, held: dict[str, Any]) -> bool:
        """Whether a lock was abandoned: its process is gone, or it was not renewed for a long time."""
        if held.get('place') == self._own['place']:
            try:
                os.kill(held['pid'], 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                pass
        now, written = probe(self._store, self._folder), _modified(self._store, self._lock)
        if now is not None and written is not None:  # the clocks of two machines may differ
            return (now - written).total_seconds() > LEASE
        return time.time() - held.get('renewed', 0.0) > LEASE


def probe(store: Any, folder: str) -> Any:
    """Write and remove an object. Returns the time on the store's clock, or None if the store does not give it."""
    path = f'{folder}/.genbench-probe-{os.urandom(8).hex()}'
    store.pipe_file(path, b'')
    try:
        return _modified(store, path)
    finally:
        store.rm_file(path)


def _modified(store: Any, path: str) -> Any:
    with contextlib.suppress(NotImplementedError, FileNotFoundError, KeyError):
        return store.modified(path)
    return None


def _place() -> str:
    """Text that two processes share only if process ids mean the same to both: containers may share a host's name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # without /proc there are no containers
        parts += [pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip(), os.readlink('/proc/self/ns/pid')]
    return ' '.join(parts)
