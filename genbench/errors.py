"""The one exception for mistakes that a user can make, and suggestions for unknown names."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator

INTERRUPTED = 75  # exit status of a run that was stopped and saved; the same command continues it


class UserError(Exception):
    """A mistake that the user can correct. The command line prints its message and exits with status 2."""


class Unprepared(UserError):
    """A data set is not prepared, or its folder is not there."""


class Busy(UserError):
    """Another process is working in the folder."""


@contextlib.contextmanager
def explained_disk_errors() -> Iterator[None]:
    """Turn errors that free space or other permissions would fix into a UserError. Also works as a decorator."""
    try:
        yield
    except OSError as error:
        reason = _DISK_TROUBLE.get(error.errno or 0)
        if reason is None:
            raise
        where = error.filename or 'A file'
        raise UserError(f'{where} cannot be written: {reason}. Earlier results are kept.') from error


_DISK_TROUBLE = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the disk quota is used up',
    errno.EACCES: 'permission is denied',
    errno.EPERM: 'the operation is not permitted',
    errno.EROFS: 'the file system is read-only',
    errno.ENOTDIR: 'part of the path is a file, not a folder',
    errno.EISDIR: 'it is a folder',
    errno.EEXIST: 'something else already has that name',
    errno.ELOOP: 'it is a link that leads to itself',
    errno.ENAMETOOLONG: 'its path is too long',
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest known words, or lists them all if they are few and none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return f'Did you mean {" or ".join(near)}?'
    if len(known) > 40:
        return f'None of the {len(known)} known names is similar.'
    return f'Choose from: {", ".join(known)}.' if known else 'There are none.'
