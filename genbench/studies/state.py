"""A trial's status: status.json in its folder. It is replaced in one move, so it is always complete.

The launcher writes it before the trial's process starts and, if the process could not, after it has ended. In between,
the process itself writes it. Nothing here imports jax, so that a status can be read quickly.
"""

import contextlib
import datetime
import json
import pathlib
import signal
import socket
from typing import Any

from genbench.errors import UserError
from genbench.reading import parse, read_json_if_any
from genbench.training.files import write_atomically

STATES = ('queued', 'running', 'done', 'failed', 'preempted')
LAST_LINES = 10
_TAIL = 16_384  # bytes at the end of a file that contain its last lines
_ROW = {'step': int, 'images_seen?': float, 'speed/images_per_second?': (float, None)}  # a row of metrics.jsonl
_EMPTY: dict[str, Any] = {
    'state': 'queued',
    'reason': '',
    'last_lines': [],
    'step': 0,
    'num_steps': 0,
    'phase': '',
    'updated': '',
    'host': '',
    'job': '',
    'attempts': 0,
    'trial_id': '',
    'part': '',  # of the trial's evaluation, such as '3/8'
    'seconds': {},  # by phase, over all attempts
}
_OLDER = {
    'starting': {'state': 'running'},
    'training': {'state': 'running', 'phase': 'training'},
    'evaluating': {'state': 'running', 'phase': 'evaluating'},
    'interrupted': {'state': 'preempted'},
}


_SHAPE = {
    'state?': (*STATES, *_OLDER), 'reason?': str, 'last_lines?': [str], 'step?': int, 'num_steps?': int, 'phase?': str,
    'updated?': str, 'host?': str, 'job?': str, 'attempts?': int, 'trial_id?': str,
    'part?': str, 'seconds?': {str: float},
}  # fmt: skip


def read(folder: pathlib.Path) -> dict[str, Any]:
    """All keys of a trial's status. Without a status file, those of a trial that never started.

    The same is returned for a status that cannot be read, together with the reason.
    """
    advice = 'The command of the study will write it again.'
    try:
        found = read_json_if_any(folder / 'status.json', _SHAPE, advice)
    except UserError as error:  # one unreadable status must not hide the others
        return {**_EMPTY, 'reason': str(error)}
    found = found or {}
    return {**_EMPTY, **found, **_OLDER.get(found.get('state', ''), {})}


def update(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """Change some keys of a trial's status, update its time, and return the whole status."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    values = {**read(folder), **changes, 'updated': now}
    write_atomically(folder / 'status.json', json.dumps(values) + '\n')
    return values


def fail(folder: pathlib.Path, reason: str) -> None:
    """Mark a trial as failed, with a one-line reason and the last lines of its log."""
    lines = last_lines(folder / 'log.txt')
    update(folder, state='failed', phase='', reason=' '.join(reason.split()), last_lines=lines)


def queue(folder: pathlib.Path, **more: Any) -> None:
    """Mark a trial as waiting for its turn. The number and duration of earlier attempts are kept."""
    before = read(folder)
    update(folder, **{**_EMPTY, 'attempts': before['attempts'], 'seconds': before['seconds'], **more})


def last_lines(path: pathlib.Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a growing text file; none if there is no file."""
    try:
        with path.open('rb') as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().decode(errors='replace').splitlines()
    except OSError:
        return []
    whole = lines if size <= _TAIL else lines[1:]
    return whole[-count:]


def last_row(path: pathlib.Path) -> dict[str, Any]:
    """The last complete row of a growing JSONL file; {} if there is none."""
    for line in reversed(last_lines(path, 3)):
        with contextlib.suppress(ValueError):
            return parse(line, _ROW)
    return {}


def ended(code: int) -> str:
    """How a process ended, in words. A negative code is minus the number of the signal that killed it."""
    if code >= 0:
        return f'its process ended with status {code}'
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'
    memory = ' (out of memory?)' if -code == signal.SIGKILL else ''
    return f'its process was killed by {name}{memory}'


def host() -> str:
    return socket.gethostname()
