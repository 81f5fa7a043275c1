"""A trial on its way: its resolved config and its folder, where its state lies."""

import dataclasses
import json
import pathlib
from typing import Any

from genbench import config as configs
from genbench.config import Config
from genbench.studies.study import Trial
from genbench.training.files import write_atomically
from genbench.training.metrics import read_rows
from genbench.training.runs import Folder


@dataclasses.dataclass
class Job:
    """What a launcher starts."""

    trial: Trial
    config: Config
    folder: Folder

    @property
    def name(self) -> str:
        return self.trial.name

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the jobs that must be done before."""
        return self.trial.after

    @property
    def wanted(self) -> pathlib.Path:
        """The resolved config that the trial's process reads."""
        return self.folder.path / 'wanted.json'

    @property
    def status(self) -> dict[str, Any]:
        path = self.folder.path / 'status.json'
        return json.loads(path.read_text()) if path.is_file() else {'state': 'queued', 'reason': ''}

    @property
    def done(self) -> bool:
        """Trained and evaluated under this very config."""
        if self.status['state'] != 'done' or not self.folder.config.is_file():
            return False
        return configs.from_json(self.folder.config.read_text()) == self.config

    @property
    def progress(self) -> str:
        state = self.status['state']
        if state != 'training':
            return state
        rows = read_rows(self.folder.metrics)
        return f'step {rows[-1]["step"] if rows else 0} of {self.config.train.num_steps}'

    def mark(self, state: str, reason: str = '') -> None:
        """Write the state that no process of the trial can write itself."""
        write_atomically(self.folder.path / 'status.json', json.dumps({'state': state, 'reason': reason}) + '\n')
