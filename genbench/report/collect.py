"""Read everything in a study's folder that the page needs."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from genbench import config as configs
from genbench.errors import UserError
from genbench.evaluation import results
from genbench.evaluation.results import BOUNDS, KEYS, RANKING
from genbench.ranges import check_path
from genbench.reading import read_json_if_any, read_rows
from genbench.report.description import read_study
from genbench.training.metrics import ROW
from genbench.training.observing import read_protocols
from genbench.training.runs import Folder

Row = dict[str, Any]
STATES = ('done', 'running', 'queued', 'preempted', 'failed')
_OLDER_STATES = {'starting': 'running', 'training': 'running', 'evaluating': 'running', 'interrupted': 'preempted'}
_NUMBER = (float, None)
_CONFIG = {'train?': {'seed?': int}, 'evaluation?': dict}
_MANIFEST = {'devices?': [str], 'versions?': {str: str}, 'commit?': str}
_PICTURES = {'rows': int, 'columns': int}
_EXPLORATION = {
    'sampler': str, 'steps': int, 'shape': [int], 'images': int,
    'denoising?': ({'reconstructions': [int], 'kept': [int], 'schedule': str}, None),
    'interpolation?': (_PICTURES, None), 'neighbours?': ({'distances': [[float]]}, None),
    'paths?': ({'sampler': str, 'steps': int, 'points': int, 'reach': float}, None),
    'density?': ({'method': str, 'kind': str, 'range': float}, None),
}  # fmt: skip
_STATUS = {'state?': (*STATES, *_OLDER_STATES), 'reason?': str, 'last_lines?': [str],
           'seconds?': {str: float}}  # fmt: skip
_SUMMARY = {
    'step?': int, 'complete?': bool, 'training_seconds?': _NUMBER, 'images_per_second?': _NUMBER, 'mfu?': _NUMBER,
    'goodput?': _NUMBER, 'skipped_updates?': _NUMBER, 'starts?': _NUMBER, 'state_sha256?': str, 'device?': str,
    'config_hash?': str, 'images_seen?': int, 'training_flops?': _NUMBER, 'step_seconds?': _NUMBER,
}  # fmt: skip
LAST_LINES = 12  # how many lines of a failed trial's log to show


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial, as found on disk. Missing parts are empty."""

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
    monitor: tuple[dict[str, Any], ...] = ()  # how it was scored during training, and from which step

    @property
    def state(self) -> str:
        """One of STATES."""
        return self.status['state']

    @property
    def seed(self) -> int | None:
        return self.config.get('train', {}).get('seed')

    @functools.cached_property
    def last_lines(self) -> list[str]:
        """The last lines it logged before it failed."""
        found = self.status.get('last_lines')
        log = self.folder.path / 'log.txt'
        if not found and log.is_file():
            found = log.read_text(errors='replace').splitlines()
        return [str(line) for line in (found or [])][-LAST_LINES:]

    def owns(self, row: Row) -> bool:
        """Whether a result row belongs to the trial's last step and to its own evaluation config."""
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
    """Trials that differ only in their training seed; `index` is the variant's place in the study."""

    name: str
    index: int
    trials: tuple[TrialRecord, ...]

    @property
    def shown(self) -> TrialRecord:
        """The trial whose pictures represent the variant: the first finished one, else the first."""
        return next((trial for trial in self.trials if trial.state == 'done'), self.trials[0])


@dataclasses.dataclass(frozen=True, eq=False)
class StudyRecord:
    """A study, as found on disk."""

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
        """The variant that others are compared with, or ''."""
        return self.description.get('baseline') or ''

    def wants(self, figure: str) -> bool:
        """Whether the study asks for a figure of this name. A study that names no figures gets all."""
        return figure in (self.description.get('figures') or (figure,))

    def select(self, metric: str) -> list[Row]:
        """Rows of a metric that have a number and come from the study's own evaluation.

        Later evaluations of a trial (other counts, seeds, checkpoints), and trials outside the study, stay in
        results.jsonl but do not appear on the page.
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
    def claims(self) -> list[dict[str, Any]]:
        """Title, claim and tests of each study in the record."""
        return self.description.get('claims') or [self.description]

    def lenders(self, trial: TrialRecord) -> list[TrialRecord]:
        """Trials of the study whose networks another trial trains with, such as its teacher."""
        settings = [text for text in trial.config.get('family', {}).values() if isinstance(text, str) and '/' in text]
        names = {configs.split_run(text)[0].rsplit('/', 1)[-1] for text in settings}
        beside = trial.folder.path.parent
        return [t for t in self.trials if t.folder.path.name in names and t.folder.path.parent == beside]

    @property
    def single(self) -> bool:
        """Whether every variant that could have several training seeds has only one."""
        return bool(self.variants) and all(len(variant.trials) == 1 for variant in self.variants)

    @property
    def main_metric(self) -> str:
        """The distance used for ranking: the first of `RANKING` that was measured."""
        return next((name for name in RANKING if self.select(name)), 'fd')

    def silent(self) -> list[str]:
        """Variants that report that they have no likelihood."""
        names = {row['trial'] for row in self.rows if row['metric'] == 'bits_per_dim' and row['kind'] == 'none'}
        return sorted({self.variant_of[name] for name in names & self.variant_of.keys()})


def read(folder: str | pathlib.Path) -> StudyRecord:
    """Read the record of a study's or run's folder. Rows of older formats are read as far as possible.

    Raises:
      UserError: the folder holds neither a study nor a run.
    """
    path = pathlib.Path(check_path(str(folder), 'The folder'))
    if not (path / 'study.json').exists():
        if (path / 'config.json').exists():
            return _run(path)
        raise UserError(f'{path} is neither a study (no study.json) nor a run (no config.json). Make a study with: '
                        f'genbench run STUDY --out {path}')  # fmt: skip
    description = read_study(path)
    variants = description.get('variants') or {}
    trials = [_trial(path / 'trials' / name, variants.get(name) or name) for name in description['trials']]
    return StudyRecord(path, description, _rows(results.read(path / 'results.jsonl')), trials)


def read_all(folders: Sequence[str | pathlib.Path]) -> StudyRecord:
    """Read several studies and runs into one record, whose trials and variants are called FOLDER/NAME.

    Raises:
      UserError: a folder holds neither a study nor a run, or is named twice.
    """
    records = [read(folder) for folder in folders]
    if len(records) == 1:
        return records[0]
    paths = [record.folder.resolve() for record in records]
    if len(set(paths)) < len(paths):
        raise UserError('The same folder is given twice.')
    alike = len({path.name for path in paths}) < len(paths)
    names = ['/'.join(path.parts[-2:]) if alike else path.name for path in paths]
    trials, rows = [], []
    for record, name in zip(records, names, strict=True):
        called = {t.name: _joined(name, t.name) for t in record.trials}
        trials += [dataclasses.replace(t, name=called[t.name], variant=_joined(name, t.variant)) for t in record.trials]
        rows += [{**row, 'trial': called.get(row['trial'], row['trial'])} for row in record.rows
                 if row['trial'] in called or row['trial'] in BOUNDS]  # fmt: skip
    own = [_prefixed(record.description, name) for record, name in zip(records, names, strict=True)]
    description = {
        'title': ', '.join(one.get('title') or name for one, name in zip(own, names, strict=True)),
        'command': 'genbench report ' + ' '.join(str(record.folder) for record in records),
        'claims': [one for one in own if one.get('claim')],
        'trials': [trial.name for trial in trials],
    }
    return StudyRecord(pathlib.Path(os.path.commonpath(paths)), description, rows, trials)


def _joined(folder: str, name: str) -> str:
    return folder if folder.rsplit('/', 1)[-1] == name else f'{folder}/{name}'


def _prefixed(description: dict[str, Any], folder: str) -> dict[str, Any]:
    """A study's own description, with its variants named as on a page of several studies."""
    tests = [
        {**test, **{side: _joined(folder, test[side]) for side in ('one', 'other') if isinstance(test[side], str)}}
        for test in description.get('tests') or ()
    ]
    return {**description, 'tests': tests}


def _run(path: pathlib.Path) -> StudyRecord:
    """Represent a run as a study of one trial, with the rows of its last evaluation."""
    name = path.resolve().name
    trial, rows = _trial(path, name), _rows(results.read(path / 'results.jsonl'))
    if not (path / 'status.json').is_file():
        trial.status['state'] = 'done' if trial.summary.get('complete') else 'preempted'
    last: dict[str, Any] = next(
        (row['protocol'] for row in reversed(rows) if 'num_samples' in (row['protocol'] or {})), {}
    )
    chosen = {key: last[key] for key in ('num_samples', 'sets', 'seed') if key in last}
    trial.config['evaluation'] = {**trial.config.get('evaluation', {}), **chosen}
    description = {'title': name, 'trials': [name], 'command': f'genbench report {path}',
                   'commit': trial.manifest.get('commit', '')}  # fmt: skip
    return StudyRecord(path, description, [{**row, 'trial': name} for row in rows], [trial])


def _rows(found: Sequence[Any]) -> list[Row]:
    complete = [{**dict.fromkeys(KEYS), **row, 'trial': row.get('trial') or ''} for row in found]
    return [row for row in complete if row['metric']]


def _trial(path: pathlib.Path, variant: str) -> TrialRecord:
    folder = Folder(path)
    status = {'state': 'queued', 'reason': '', **_json(path / 'status.json', _STATUS)}
    status['state'] = _OLDER_STATES.get(status['state'], status['state'])
    return TrialRecord(
        name=path.name,
        variant=variant,
        folder=folder,
        status=status,
        config=_json(folder.config, _CONFIG),
        manifest=_json(folder.manifest, _MANIFEST),
        summary=_json(folder.summary, _SUMMARY),
        metrics=read_rows(folder.metrics, ROW),
        exploration=_json(path / 'exploration' / 'exploration.json', _EXPLORATION),
        monitor=_monitor(folder),
        grid=tuple(_json(path / 'trial.json', {'grid?': [str]}).get('grid') or ()),
    )


def _monitor(folder: Folder) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(read_protocols(folder))
    except UserError:  # as `_json`
        return ()


def _json(path: pathlib.Path, shape: Any = dict) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing, damaged or holds something else."""
    try:
        return read_json_if_any(path, shape) or {}
    except UserError:  # the page shows what it can read
        return {}
