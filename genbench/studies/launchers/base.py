"""The interface of a launcher."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Protocol

from genbench.errors import UserError
from genbench.studies import state
from genbench.studies.job import Job


class Launcher(Protocol):
    """Starts processes for jobs. A trial's status is in its folder, not here.

    Attributes:
      interruption: a sentence that tells the user what it means when `launch` returns True.
    """

    interruption: str

    def launch(self, jobs: Sequence[Job], floor: Sequence[str] = ()) -> bool:
        """Run the unfinished jobs, each after the jobs it depends on, until all have ended.

        A job that fails is marked as failed in its folder. It stops only the jobs that depend on it.

        Args:
          floor: arguments of a worker that scores real images, which is not a trial; () if that is already done.

        Returns:
          True if it stopped before the jobs had ended. The same call then continues from there.

        Raises:
          UserError: real images cannot be scored, or nothing can be started at all.
        """


def floor_log(floor: Sequence[str]) -> pathlib.Path:
    """The log of the worker that scores real images, next to its results. It is overwritten each time."""
    log = pathlib.Path(floor[2]).with_suffix('.log')
    log.unlink(missing_ok=True)
    return log


def check_floor(code: int, log: pathlib.Path) -> None:
    """Raise a UserError with the last log lines if the worker failed to score real images."""
    if code:
        lines = [line for line in state.last_lines(log) if line.strip() and not line.startswith('srun:')]
        reason = lines[-1].strip() if lines else state.ended(code)
        raise UserError(f'Real images cannot be scored: {reason} (log: {log})')


def worker(*arguments: object) -> list[str]:
    """The command of a study's process; see `genbench.studies.worker`."""
    return [sys.executable, '-m', 'genbench.studies.worker', *map(str, arguments)]
