"""Progress of an evaluation: its parts, the current one, and an estimate of the time left."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


class Parts:
    """Counts the parts of an evaluation, and reports them in a line on stderr and to a callback.

    Args:
      total: the number of parts.
      report: called with (done, total) before each part.
    """

    def __init__(self, total: int, quiet: bool = False, report: Callable[[int, int], None] | None = None):
        self._done, self._total, self._quiet, self._report = 0, total, quiet, report
        self._began = time.monotonic()

    @contextlib.contextmanager
    def part(self, title: str) -> Iterator[None]:
        """Run the next part inside this context."""
        if self._report is not None:
            self._report(self._done, self._total)
        if not self._quiet and self._total > 1:
            print(f'evaluate, part {self._done + 1} of {self._total}: {title}{self._left()}', file=sys.stderr,
                  flush=True)  # fmt: skip
        yield
        self._done += 1

    def _left(self) -> str:
        """The time left, at the mean speed of the parts so far."""
        if not self._done:
            return ''
        seconds = (time.monotonic() - self._began) / self._done * (self._total - self._done)
        return f' (about {seconds:.0f} s left in total)'
