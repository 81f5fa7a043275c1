"""What a study's folder says, read into one place for the page."""

import dataclasses
import json
import pathlib
from typing import Any

from genbench.errors import UserError
from genbench.training.metrics import read_rows
from genbench.training.runs import Folder


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial as found on disk; missing parts are empty."""

    name: str
    folder: Folder
    status: dict[str, Any]
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]

    def owns(self, row: dict[str, Any]) -> bool:
        """Whether a result row is of the trial's last step and of its own evaluation config."""
        options, protocol = self.config.get('evaluation', {}), row['protocol']
        same = all(protocol.get(key, options.get(key)) == options.get(key) for key in ('num_samples', 'sets', 'seed'))
        return same and row['checkpoint_step'] == self.summary.get('step')


@dataclasses.dataclass(frozen=True)
class StudyRecord:
    """A study as found on disk."""

    folder: pathlib.Path
    description: dict[str, Any]
    rows: list[dict[str, Any]]
    trials: list[TrialRecord]

    def select(self, metric: str) -> list[dict[str, Any]]:
        """Rows of a metric that hold a number and were made under the study's own evaluation.

        Later evaluations of a trial (other counts, seeds, checkpoints) stay in results.jsonl and off the page.
        """
        trials = {trial.name: trial for trial in self.trials}
        rows = [row for row in self.rows if row['metric'] == metric and row['value'] is not None]
        return [row for row in rows if row['trial'] not in trials or trials[row['trial']].owns(row)]

    def distances(self) -> list[dict[str, Any]]:
        """Rows of the Fréchet distance: FID where there is any, else FD."""
        return self.select('fid') or self.select('fd')


def read(folder: str | pathlib.Path) -> StudyRecord:
    """The record of a study's folder.

    Raises:
      UserError: the folder holds no study.
    """
    path = pathlib.Path(folder)
    if not (path / 'study.json').is_file():
        raise UserError(f'{path} holds no study (no study.json); write one with: genbench run STUDY --out {path}')
    description = _json(path / 'study.json')
    trials = [_trial(path / 'trials' / name) for name in description['trials']]
    return StudyRecord(path, description, read_rows(path / 'results.jsonl'), trials)


def _trial(path: pathlib.Path) -> TrialRecord:
    folder = Folder(path)
    return TrialRecord(
        name=path.name,
        folder=folder,
        status=_json(path / 'status.json') or {'state': 'queued', 'reason': ''},
        config=_json(folder.config),
        manifest=_json(folder.manifest),
        summary=_json(folder.summary),
        metrics=read_rows(folder.metrics),
    )


def _json(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
