"""What a study's folder says, read into one place for the page."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from genbench.errors import UserError
from genbench.evaluation.results import BOUNDS, KEYS
from genbench.training.metrics import read_rows
from genbench.training.runs import Folder

Row = dict[str, Any]
STATES = ('done', 'running', 'queued', 'preempted', 'failed')
_OLDER_STATES = {'starting': 'running', 'training': 'running', 'evaluating': 'running', 'interrupted': 'preempted'}
LAST_LINES = 12  # of the log of a trial that failed


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial as found on disk; missing parts are empty."""

    name: str
    variant: str
    folder: Folder
    status: dict[str, Any]
    config: dict[str, Any]
    manifest: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    exploration: dict[str, Any]
    grid: tuple[str, ...] = ()  # axes of its evaluation

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.status['state']

    @property
    def seed(self) -> int | None:
        return self.config.get('train', {}).get('seed')

    @functools.cached_property
    def last_lines(self) -> list[str]:
        """The end of what it said before it failed."""
        found = self.status.get('last_lines')
        log = self.folder.path / 'log.txt'
        if not found and log.is_file():
            found = log.read_text(errors='replace').splitlines()
        return [str(line) for line in (found or [])][-LAST_LINES:]

    def owns(self, row: Row) -> bool:
        """Whether a result row is of the trial's last step and of its own evaluation config."""
        options, protocol = self.config.get('evaluation', {}), row['protocol']
        same = all(protocol.get(key, options.get(key)) == options.get(key) for key in ('num_samples', 'sets'))
        same &= str(protocol.get('seed', options.get('seed'))) in self._sample_seeds
        return same and row['checkpoint_step'] in (None, self.summary.get('step'))

    @property
    def _sample_seeds(self) -> list[str]:
        chosen = [word.partition('=')[2].split(',') for word in self.grid if word.startswith('seed=')]
        return chosen[-1] if chosen else [str(self.config.get('evaluation', {}).get('seed'))]


@dataclasses.dataclass(frozen=True)
class Variant:
    """Trials that differ in their training seed only; `index` is its place in the study."""

    name: str
    index: int
    trials: tuple[TrialRecord, ...]

    @property
    def shown(self) -> TrialRecord:
        """The trial whose pictures stand for all: the first that is done, else the first."""
        return next((trial for trial in self.trials if trial.state == 'done'), self.trials[0])


@dataclasses.dataclass(frozen=True, eq=False)
class StudyRecord:
    """A study as found on disk."""

    folder: pathlib.Path
    description: dict[str, Any]
    rows: list[Row]
    trials: list[TrialRecord]

    @functools.cached_property
    def variants(self) -> list[Variant]:
        names = list(dict.fromkeys(trial.variant for trial in self.trials))
        return [
            Variant(name, index, tuple(trial for trial in self.trials if trial.variant == name))
            for index, name in enumerate(names)
        ]

    @functools.cached_property
    def variant_of(self) -> dict[str, str]:
        return {trial.name: trial.variant for trial in self.trials}

    @property
    def baseline(self) -> str:
        """The variant others are compared with, or ''."""
        return self.description.get('baseline') or ''

    def wants(self, figure: str) -> bool:
        """Whether the study asks for a figure of this name; one that names none wants all."""
        return figure in (self.description.get('figures') or (figure,))

    def select(self, metric: str) -> list[Row]:
        """Rows of a metric that hold a number and were made under the study's own evaluation.

        Later evaluations of a trial (other counts, seeds, checkpoints), and trials that are not of the study, stay in
        results.jsonl and off the page.
        """
        return self._selected.get(metric, [])

    @functools.cached_property
    def _selected(self) -> dict[str, list[Row]]:
        trials = {trial.name: trial for trial in self.trials}
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            owner = trials.get(row['trial'])
            if row['value'] is not None and (owner.owns(row) if owner else row['trial'] in BOUNDS):
                found.setdefault(row['metric'], []).append(row)
        return found

    @property
    def main_metric(self) -> str:
        """The Fréchet distance that ranks: FID where there is any, else FD."""
        return 'fid' if self.select('fid') else 'fd'

    def silent(self) -> list[str]:
        """Variants that say they have no likelihood."""
        names = {row['trial'] for row in self.rows if row['metric'] == 'bits_per_dim' and row['kind'] == 'none'}
        return sorted({self.variant_of[name] for name in names & self.variant_of.keys()})


def read(folder: str | pathlib.Path) -> StudyRecord:
    """The record of a study's folder; rows of older formats are read as far as they go.

    Raises:
      UserError: the folder holds no study.
    """
    path = pathlib.Path(folder)
    if not (path / 'study.json').is_file():
        raise UserError(f'{path} holds no study (no study.json); write one with: genbench run STUDY --out {path}')
    description = _json(path / 'study.json')
    if not isinstance(description.get('trials'), list):
        raise UserError(f'{path / "study.json"} cannot be read; write it again with: genbench run STUDY --out {path}')
    variants = description.get('variants') or {}
    trials = [_trial(path / 'trials' / name, variants.get(name) or name) for name in description['trials']]
    return StudyRecord(path, description, _rows(read_rows(path / 'results.jsonl')), trials)


def _rows(found: Sequence[Any]) -> list[Row]:
    complete = [
        {**dict.fromkeys(KEYS), 'trial': '', **row, 'protocol': row.get('protocol') or {}}
        for row in found
        if isinstance(row, dict)
    ]
    return [row for row in complete if row['metric']]


def _trial(path: pathlib.Path, variant: str) -> TrialRecord:
    folder = Folder(path)
    status = {'state': 'queued', 'reason': '', **_json(path / 'status.json')}
    status['state'] = _OLDER_STATES.get(status['state'], status['state'])
    return TrialRecord(
        name=path.name,
        variant=variant,
        folder=folder,
        status=status,
        config=_json(folder.config),
        manifest=_json(folder.manifest),
        summary=_json(folder.summary),
        metrics=[row for row in read_rows(folder.metrics) if isinstance(row, dict)],
        exploration=_json(path / 'exploration' / 'exploration.json'),
        grid=tuple(_json(path / 'trial.json').get('grid') or ()),
    )


def _json(path: pathlib.Path) -> dict[str, Any]:
    """The object of a JSON file; empty where it is missing, half-written or something else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
