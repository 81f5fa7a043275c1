"""Files of a local copy: which belong in the store, in which order they are sent, and when they have changed."""

import contextlib
import os
import pathlib
import re
import stat
import sys
from collections.abc import Iterable, Mapping

MARKER = 'commit_success.txt'  # the last file that a checkpoint writes
_CHECKPOINT = re.compile(r'(?:.*/)?checkpoints/\d+(?=/)')


def whole(names: Iterable[str]) -> set[str]:
    """The names, without those in checkpoints that lack their marker."""
    names = set(names)
    steps = {name: match[0] for name in names if (match := _CHECKPOINT.match(name))}
    return {name for name in names if name not in steps or f'{steps[name]}/{MARKER}' in names}


def step_of(name: str) -> str:
    """The checkpoint to which a file belongs, or ''."""
    match = _CHECKPOINT.match(name)
    return match[0] if match else ''


def order(name: str) -> tuple[int, str, bool, int, str]:
    """Sort key for sending: checkpoints last, the newest first, each with the marker of the whole checkpoint last."""
    step = step_of(name)
    newest = -int(step.rpartition('/')[2]) if step else -sys.maxsize
    return newest, step, name.endswith(f'/{MARKER}'), -name.count('/'), name


def below(files: Mapping[str, list[int]], step: str) -> dict[str, list[int]]:
    return {name: facts for name, facts in files.items() if step_of(name) == step}


def belongs(name: str) -> bool:
    """Whether a file or folder is to be sent. Locks are not, nor are files still being written."""
    return not name.startswith('.') and 'orbax-checkpoint-tmp' not in name


def facts_of(path: pathlib.Path) -> list[int] | None:
    """Size and time of change of a file; None if there is none."""
    with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        return [facts.st_size, facts.st_mtime_ns] if stat.S_ISREG(facts.st_mode) else None
    return None


def beside(path: pathlib.Path) -> pathlib.Path:
    """A new hidden name in the same folder. A process id would not do: containers that share a folder may share it."""
    return path.with_name(f'.{path.name.lstrip(".")}.{os.urandom(8).hex()}')


def raise_if_there(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # an old checkpoint may vanish during the walk
        raise error
