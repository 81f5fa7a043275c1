"""The one exception for mistakes a user can make, and the suggestion that goes with an unknown name."""

import difflib
from collections.abc import Iterable

INTERRUPTED = 75  # exit status of a run that was stopped and saved: the same command goes on from there


class UserError(Exception):
    """A mistake that the message explains and the user can mend; the command line prints it and exits with 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known words, or all of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return f'Did you mean {" or ".join(near)}?'
    return f'Known: {", ".join(known)}.' if known else 'None is known.'
