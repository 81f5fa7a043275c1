"""One process or several: how they find each other, which one writes, and how all stop at the same step."""

import contextlib
import io
import json
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from genbench.errors import UserError

RESOLVE_SECONDS = 10.0
LAST_UPLOAD = 3600  # how many seconds the others wait at the end, while the first process may still send files
_BLOCK = 2**24  # bytes that a process sends at once


def connect(coordinator: str = '', num_processes: int | None = None, process_id: int | None = None, *,
            detect: bool = False) -> None:  # fmt: skip
    """Join the processes of a run, before jax is used. Without arguments, only in a SLURM step of several tasks.

    Args:
      coordinator: HOST:PORT of process 0. Give it together with the two numbers.
      detect: ask the cluster (SLURM, Open MPI, Kubernetes, TPU pods) for the other processes.

    Raises:
      UserError: some of the flags are missing, or no cluster is found.
    """
    given = [bool(coordinator), num_processes is not None, process_id is not None]
    if any(given):
        if not all(given):
            raise UserError('--coordinator, --num-processes and --process-id go together; give all three.')
        if not 0 <= int(process_id or 0) < int(num_processes or 0):
            raise UserError(f'--process-id is {process_id}; with --num-processes={num_processes} it counts from 0.')
        check_coordinator(coordinator)
        _initialise(coordinator, num_processes, process_id)
    elif detect or tasks(os.environ) > 1:
        _initialise()


def answer_sigterm() -> None:
    """Let SIGTERM do again what it did before the processes joined, for work that does not ask a `StopRequest`.

    jax takes the signal for itself when processes join, and would otherwise swallow it.
    """
    if several():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


def check_coordinator(address: str) -> None:
    """Raise a UserError if this is not HOST:PORT, or if the host does not resolve within RESOLVE_SECONDS."""
    host, _, port = address.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f'--coordinator is {address!r}; write HOST:PORT, for example node1:12345.')
    found: list[Any] = []

    def resolve() -> None:
        with contextlib.suppress(OSError, UnicodeError):  # UnicodeError: no host can have this name
            found.extend(socket.getaddrinfo(host.strip('[]'), int(port), type=socket.SOCK_STREAM))

    thread = threading.Thread(target=resolve, daemon=True)  # the system may wait for minutes
    thread.start()
    thread.join(RESOLVE_SECONDS)
    if not found:
        raise UserError(f'The host {host!r} of --coordinator is not known; give a name or an address that every '
                        'process can reach.')  # fmt: skip


def tasks(environment: Mapping[str, str]) -> int:
    """The number of processes in this SLURM step; 1 outside of one."""
    number = environment.get('SLURM_STEP_NUM_TASKS', '1')
    return int(number) if number.isdigit() and 'SLURM_PROCID' in environment else 1


def _initialise(address: str | None = None, count: int | None = None, own: int | None = None) -> None:
    try:
        jax.distributed.initialize(address, count, own, shutdown_timeout_seconds=LAST_UPLOAD)
        exchange(b'')  # now, because on CPUs the first exchange fails if one process is 30 s late
    except (ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'The processes of this run cannot connect ({reason}). Use --coordinator, '
                        '--num-processes and --process-id.') from error  # fmt: skip


def require_one(what: str) -> None:
    """Raise a UserError in a SLURM step of several tasks. For work that one process does."""
    number = max(tasks(os.environ), jax.process_count())
    if number > 1:
        raise UserError(f'{what} needs one process, not {number}. It uses all devices that this process sees. '
                        'Under SLURM: srun --ntasks=1.')  # fmt: skip


def is_first() -> bool:
    """Whether this is the process that writes shared files."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether several processes are joined."""
    return jax.process_count() > 1


def part(start: int, stop: int) -> tuple[int, int]:
    """This process's share of the items start … stop − 1. Shares are equal, in the order of the processes."""
    index, number, count = jax.process_index(), jax.process_count(), stop - start
    return start + count * index // number, start + count * (index + 1) // number


def first_does(action: Callable[[], object]) -> None:
    """Run `action` in the first process while the others wait. If it raises a UserError, all processes raise it."""

    def act() -> bytes:
        action()
        return b''

    from_first(act)


def agreed(value: Any) -> Any:
    """The first process's value, in every process. It must be a value that JSON can hold."""
    return value if jax.process_count() == 1 else json.loads(from_first(lambda: json.dumps(value).encode()))


def from_first(make: Callable[[], bytes]) -> bytes:
    """Give every process what `make` returns in the first. If it fails there, all fail, so none waits for ever."""
    if jax.process_count() == 1:
        return make()
    said, problem = b'', None
    if is_first():
        try:
            said = b'+' + make()
        except Exception as error:
            said, problem = b'-' + (str(error) or type(error).__name__).encode(), error
    said = exchange(said)[0]
    if problem is not None:
        raise problem
    if said[:1] == b'-':
        raise UserError(said[1:].decode())
    return said[1:]


def gathered(rows: np.ndarray | None) -> np.ndarray:
    """Give every process the rows of all processes, in their order. A process without rows passes None."""
    if jax.process_count() == 1:
        assert rows is not None
        return rows
    said = io.BytesIO()
    if rows is not None:
        np.save(said, rows, allow_pickle=False)
    parts = [np.load(io.BytesIO(data), allow_pickle=False) for data in exchange(said.getvalue()) if data]
    return np.concatenate(parts)


def exchange(data: bytes) -> list[bytes]:
    """What each process sent, in their order. All processes wait for each other.

    It takes bytes, because jax would turn float64 into float32. They travel in blocks, and each device briefly holds
    the blocks of all processes.
    """
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [data]
    lengths = multihost_utils.process_allgather(np.frombuffer(np.int64(len(data)).tobytes(), np.uint8))
    sizes = [int(np.frombuffer(one.tobytes(), np.int64)[0]) for one in lengths]
    found: list[list[bytes]] = [[] for _ in sizes]
    for start in range(0, max(sizes), _BLOCK):
        # Block sizes are powers of two, so that few programs need compiling.
        width = min(_BLOCK, 2 ** (max(sizes) - start - 1).bit_length())
        block = np.frombuffer(data[start : start + width].ljust(width, b'\0'), np.uint8)
        for pieces, one in zip(found, multihost_utils.process_allgather(block), strict=True):
            pieces.append(one.tobytes())
    return [b''.join(pieces)[:size] for pieces, size in zip(found, sizes, strict=True)]


def all_agree(verdict: bool) -> bool:
    """Whether the verdict is true in every process."""
    return all(data == b'+' for data in exchange(b'+' if verdict else b'-'))


class StopRequest:
    """A context in which SIGTERM or SIGINT makes `reached` true, at the same step in every process, and for good."""

    def __init__(self) -> None:
        self._asked = self._reached = False
        self._shared = jax.distributed.is_initialized()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> 'StopRequest':
        # With several processes, jax itself listens for SIGTERM, and our handler would stop it from doing so.
        own = {signal.SIGINT: _pass_on} if self._shared else {signal.SIGINT: self._ask, signal.SIGTERM: self._ask}
        self._previous = {number: signal.signal(number, handler) for number, handler in own.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def reached(self, step: int) -> bool:
        """Whether to stop before the update after `step`. Every process must ask at every step."""
        if self._shared and not self._reached:
            from jax.experimental import multihost_utils

            self._reached = multihost_utils.reached_preemption_sync_point(step)
        return self._reached or self._asked


def _pass_on(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def machine() -> dict[str, Any]:
    """The machine on which a speed was measured, and the number of devices in all processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    devices = sorted({f'{device.platform}:{device.device_kind}' for device in jax.devices()})
    joined = {'processes': jax.process_count()} if several() else {}
    return {'host': platform.node(), 'cores': cores, 'devices': devices, 'count': jax.device_count(), **joined}
