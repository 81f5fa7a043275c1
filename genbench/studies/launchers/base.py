"""What a launcher is."""

import sys
from collections.abc import Sequence
from typing import Protocol

from genbench.studies.job import Job


class Launcher(Protocol):
    """Starts processes for jobs; how a trial stands is in its folder, not here.

    Attributes:
      interruption: what `launch` returning True means, in a sentence for the user.
    """

    interruption: str

    def launch(self, jobs: Sequence[Job]) -> bool:
        """Run the jobs that are not done, each after those it waits for, until all have ended.

        A job that fails is marked so in its folder and stops only those that wait for it.

        Returns:
          True when it ended before they did, and the same call goes on from there.
        """


def worker(*arguments: object) -> list[str]:
    """The command of a study's process; see `genbench.studies.worker`."""
    return [sys.executable, '-m', 'genbench.studies.worker', *map(str, arguments)]
