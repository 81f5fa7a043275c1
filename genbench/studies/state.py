"""How a trial stands: status.json in its folder, which is replaced in one move and so is always whole.

Who writes: the launcher before the trial's process starts and, where that could not, after it ended; in between the
process itself. Nothing here imports jax, so that a status can be read quickly.
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
_TAIL = 16_384  # bytes at the end of a file that hold its last lines
_ROW = {'step': int, 'images_seen?': float, 'speed/images_per_second?': (float, None)}  # of metrics.jsonl
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
    'part': '',  # of its evaluation, like '3/8'
    'seconds': {},  # by phase, of all attempts
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
    """All keys of a trial's status; those of a trial that never started where there is none.

    A status that cannot be read is one of those, too, and gives the reason.
    """
    advice = 'The command of the study goes on and writes it again.'
    try:
        found = read_json_if_any(folder / 'status.json', _SHAPE, advice)
    except UserError as error:  # one trial's status, and no reason to hide how the others stand
        return {**_EMPTY, 'reason': str(error)}
    found = found or {}
    return {**_EMPTY, **found, **_OLDER.get(found.get('state', ''), {})}


def update(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """Replace some keys of a trial's status, say when, and return all of it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    values = {**read(folder), **changes, 'updated': now}
    write_atomically(folder / 'status.json', json.dumps(values) + '\n')
    return values


def fail(folder: pathlib.Path, reason: str) -> None:
    """Mark a trial as failed, with one line that says why and the last ones of its log."""
    lines = last_lines(folder / 'log.txt')
    update(folder, state='failed', phase='', reason=' '.join(reason.split()), last_lines=lines)


def queue(folder: pathlib.Path, **more: Any) -> None:
    """Mark a trial as waiting for its turn; of earlier starts their number and what they took are kept."""
    before = read(folder)
    update(folder, **{**_EMPTY, 'attempts': before['attempts'], 'seconds': before['seconds'], **more})


def last_lines(path: pathlib.Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a text file that grows; none where there is no file."""
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
    """The last whole row of a JSONL file that grows; {} where there is none."""
    for line in reversed(last_lines(path, 3)):
        with contextlib.suppress(ValueError):
            return parse(line, _ROW)
    return {}


def ended(code: int) -> str:
    """In words, how a process ended that could not say it itself: its exit status, or minus the signal."""
    if code >= 0:
        return f'its process ended with status {code}'
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'
    memory = ' (out of memory?)' if -code == signal.SIGKILL else ''
    return f'its process was killed by {name}{memory}'


def host() -> str:
    return socket.gethostname()
