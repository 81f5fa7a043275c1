"""A trial to be run: its resolved config, and the folder that holds its state."""

import dataclasses
import pathlib
from typing import Any

from genbench.config import Config
from genbench.studies import identity, state
from genbench.studies.study import Trial
from genbench.training.runs import Folder


@dataclasses.dataclass
class Job:
    """What a launcher starts. Next to `wanted`, its process finds `identity.FILE` with the identity and the grid."""

    trial: Trial
    config: Config
    folder: Folder
    trial_id: str = ''

    @property
    def name(self) -> str:
        return self.trial.name

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the jobs that must finish first."""
        return tuple(self.trial.after)

    @property
    def wanted(self) -> pathlib.Path:
        """The file with the resolved config, which the trial's process reads."""
        return self.folder.path / 'wanted.json'

    @property
    def status(self) -> dict[str, Any]:
        return state.read(self.folder.path)

    @property
    def done(self) -> bool:
        """Whether it has been trained and evaluated under exactly this identity."""
        return self.status['state'] == 'done' and identity.read(self.folder.path).get('trial_id', '') == self.trial_id
