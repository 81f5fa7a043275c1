"""What a launcher is."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Protocol

from genbench.errors import UserError
from genbench.studies import state
from genbench.studies.job import Job


class Launcher(Protocol):
    """Starts processes for jobs; how a trial stands is in its folder, not here.

    Attributes:
      interruption: what `launch` returning True means, in a sentence for the user.
    """

    interruption: str

    def launch(self, jobs: Sequence[Job], floor: Sequence[str] = ()) -> bool:
        """Run the jobs that are not done, each after those it waits for, until all have ended.

        A job that fails is marked so in its folder and stops only those that wait for it.

        Args:
          floor: words of a worker that scores real images, which is not a trial; () where that is done.

        Returns:
          True when it ended before they did, and the same call goes on from there.

        Raises:
          UserError: real images cannot be scored, or nothing can be started at all.
        """


def floor_log(floor: Sequence[str]) -> pathlib.Path:
    """Where the worker that scores real images writes what it has to say: beside its results, and anew."""
    log = pathlib.Path(floor[2]).with_suffix('.log')
    log.unlink(missing_ok=True)
    return log


def check_floor(code: int, log: pathlib.Path) -> None:
    """Raise a UserError with the last words of the worker that should have scored real images."""
    if code:
        lines = [line for line in state.last_lines(log) if line.strip() and not line.startswith('srun:')]
        reason = lines[-1].strip() if lines else state.ended(code)
        raise UserError(f'Real images cannot be scored: {reason} (log: {log})')


def worker(*arguments: object) -> list[str]:
    """The command of a study's process; see `genbench.studies.worker`."""
    return [sys.executable, '-m', 'genbench.studies.worker', *map(str, arguments)]
