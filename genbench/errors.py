"""The one exception for mistakes a user can make, and the suggestion that goes with an unknown name."""

import difflib
import errno
from collections.abc import Iterable

INTERRUPTED = 75  # exit status of a run that was stopped and saved: the same command goes on from there


class UserError(Exception):
    """A mistake that the message explains and the user can mend; the command line prints it and exits with 2."""


def disk_trouble(error: OSError) -> str | None:
    """One line for an error that freeing space or changing permissions mends; None for any other."""
    reasons = {
        errno.ENOSPC: 'the disk is full',
        errno.EDQUOT: 'the disk quota is used up',
        errno.EACCES: 'permission is denied',
        errno.EPERM: 'it is not permitted',
        errno.EROFS: 'the file system is read-only',
        errno.ENOTDIR: 'part of the path is a file, not a folder',
    }
    reason = reasons.get(error.errno or 0)
    return f'{error.filename or "A file"} cannot be written: {reason}. What was saved before stays.' if reason else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known words, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return f'Did you mean {" or ".join(near)}?'
    return f'Known: {", ".join(known)}.' if known else 'None is known.'
