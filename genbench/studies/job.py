"""A trial on its way: its resolved config and its folder, where its state lies."""

import dataclasses
import pathlib
from typing import Any

from genbench.config import Config
from genbench.studies import identity, state
from genbench.studies.study import Trial
from genbench.training.runs import Folder


@dataclasses.dataclass
class Job:
    """What a launcher starts; beside `wanted` its process finds `identity.FILE`, with its identity and its grid."""

    trial: Trial
    config: Config
    folder: Folder
    trial_id: str = ''

    @property
    def name(self) -> str:
        return self.trial.name

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the jobs that must be done before."""
        return tuple(self.trial.after)

    @property
    def wanted(self) -> pathlib.Path:
        """The resolved config that the trial's process reads."""
        return self.folder.path / 'wanted.json'

    @property
    def status(self) -> dict[str, Any]:
        return state.read(self.folder.path)

    @property
    def done(self) -> bool:
        """Trained and evaluated under this very identity."""
        return self.status['state'] == 'done' and identity.read(self.folder.path).get('trial_id', '') == self.trial_id
