"""The folder of a run: its config, its manifest, and what another run or an evaluation reads from it."""

import contextlib
import dataclasses
import functools
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from genbench import config as configs
from genbench import families, reading
from genbench.config import Config
from genbench.data.spec import DataSpec
from genbench.errors import Busy, UserError
from genbench.families import own, stages, texts
from genbench.families.base import Borrowed, Family
from genbench.training import averages, checkpoint, encoders, installed, placement
from genbench.training.checkpoint import Checkpoints, DamagedError
from genbench.training.files import write_atomically
from genbench.training.schemas import MANIFEST, SUMMARY
from genbench.training.state import Blueprint, State, count

MANIFEST_FORMAT = 1
MONITOR = 'monitor.json'  # how scores are computed during training

FILES = ('config.json', 'manifest.json', 'metrics.jsonl', 'results.jsonl', 'summary.json', 'starts.jsonl',
         'nonfinite.json', 'trackers.json', MONITOR, '.lock')  # fmt: skip
FOLDERS = ('checkpoints', 'snapshots', 'samples', 'events', 'profile', 'evaluation', 'exploration', 'damaged',
           'borrowed', 'prepared')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Folder:
    """Names of the files of a run."""

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        return self.path / 'config.json'

    @property
    def manifest(self) -> pathlib.Path:
        return self.path / 'manifest.json'

    @property
    def metrics(self) -> pathlib.Path:
        return self.path / 'metrics.jsonl'

    @property
    def results(self) -> pathlib.Path:
        return self.path / 'results.jsonl'

    @property
    def summary(self) -> pathlib.Path:
        return self.path / 'summary.json'

    @property
    def starts(self) -> pathlib.Path:
        return self.path / 'starts.jsonl'

    @property
    def nonfinite(self) -> pathlib.Path:
        return self.path / 'nonfinite.json'

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / 'checkpoints'

    @property
    def snapshots(self) -> pathlib.Path:
        return self.path / 'snapshots'

    @property
    def prepared(self) -> pathlib.Path:
        return self.path / 'prepared'

    @property
    def samples(self) -> pathlib.Path:
        return self.path / 'samples'

    def read_summary(self) -> dict[str, Any] | None:
        """What a run reported about itself when it ended or was stopped; None before that."""
        return reading.read_json_if_any(self.summary, SUMMARY, 'Delete it; training will write it again.')

    def read_manifest(self) -> dict[str, Any]:
        return reading.read_json(self.manifest, MANIFEST, 'Restore it from a copy of the run.')

    def check(self) -> None:
        """Raise a UserError if something else occupies the name of one of the run's files or folders."""
        reading.check_entries(self.path, FILES, FOLDERS)
        checkpoint.check_path(self.path)


def check(workdir: str | pathlib.Path, config: Config) -> Folder:
    """The folder of a run, either new or belonging to this config. Nothing is written.

    A run with a constant learning rate may be extended to more steps. Any other difference makes it another run.
    """
    folder = Folder(pathlib.Path(workdir))
    folder.check()
    if folder.config.is_file() and folder.manifest.is_file():  # a run without a manifest never started
        _check_same(folder, config)
    return folder


def claim(folder: Folder, config: Config) -> None:
    """Create the folder and write the config into it."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.samples.mkdir(exist_ok=True)
        write_atomically(folder.config, configs.to_json(config))
    except OSError as error:
        raise UserError(f'The run folder {folder.path} cannot be written: {error.strerror}.') from None


@contextlib.contextmanager
def lock(folder: Folder) -> Iterator[None]:
    """Hold a run's folder for this process. Raise `Busy` if another process is training there."""
    import fcntl

    with (folder.path / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f'Another process is training in {folder.path}; wait for it or stop it.') from None
        except OSError as error:
            told = f'{folder.path} cannot be locked ({error.strerror}); make sure that only one process trains there.'
            warnings.warn(told, stacklevel=2)
        yield


def _check_same(folder: Folder, config: Config) -> None:
    old = configs.read(folder.config)
    changed = configs.difference(configs.lasting(old), configs.lasting(config))
    if config.optimizer.schedule == 'constant' and config.train.num_steps > old.train.num_steps:
        changed.pop('train.num_steps', None)
    if changed:
        shown = '; '.join(f'{key} is {a!r} there, but {b!r} here' for key, (a, b) in list(changed.items())[:3])
        raise UserError(f'{folder.path} belongs to another config: {shown}. Use another --workdir.')


def check_data(folder: Folder, spec: DataSpec) -> None:
    """Raise a UserError if a run would continue on other images than it began with."""
    if not folder.manifest.is_file():
        return
    before = folder.read_manifest()['data'].get('content', '')
    if before and spec.content != before:
        raise UserError(f'{folder.path} was trained on other images: {spec.name} has been prepared again since, from '
                        'changed files. Use another --workdir.')  # fmt: skip


def manifest(family: Family, params: Mapping[str, Any], lent: Mapping[str, 'Loan']) -> dict[str, Any]:
    """Everything a reader needs to rebuild the run and trust it."""
    return {
        'format': MANIFEST_FORMAT,
        'family': family.name,
        'data': dataclasses.asdict(family.spec),
        'config_hash': configs.config_hash(family.config),
        'versions': installed.versions(),
        'commit': installed.commit(),
        'modules': own.digests(family.config.family.modules),
        'parameters': {name: count(tree) for name, tree in params.items()},
        'devices': [f'{device.platform}:{device.device_kind}' for device in jax.devices()],
        'borrowed': {name: loan.description for name, loan in lent.items()},
        **({'notes': dict(family.notes)} if family.notes else {}),
    }


def spec_from(values: Mapping[str, Any]) -> DataSpec:
    """The data specification recorded in a manifest.

    Raises:
      UserError: no images can match it.
    """
    shape, levels, classes = tuple(values['shape']), values['levels'], values['classes']
    if len(shape) != 3 or min(shape) < 1 or levels < 2 or classes < 0:
        raise UserError(f'it describes images of shape {shape} with {levels} levels and {classes} classes.')
    fields = tuple((pair[0], pair[1]) for pair in values.get('fields', ()) if len(pair) == 2)
    return DataSpec(values['name'], shape, levels, classes, fields, values.get('content', ''))


@dataclasses.dataclass(frozen=True)
class Loan:
    """A run lent to another.

    Attributes:
      description: the run's entry in the manifest.
      state: on the host, the 'params' of one average, 'aux', and what is 'lent' to it in turn; shapes for an untrained
        run.
    """

    description: dict[str, Any]
    state: State


def borrow(config: Config, folder: Folder | None = None, leave: Sequence[str] = ()) -> dict[str, Loan]:
    """The runs that a config builds on, by the family's names for them.

    Args:
      folder: of the borrowing run. Once it has a checkpoint, it gets the same loans as before. Copies in its own folder
        `borrowed` take precedence over the runs that the config names (`training.lending`).
      leave: names of runs that are not needed.

    Raises:
      UserError: a run is missing, unfinished, or has changed since it was borrowed.
    """
    started = folder is not None and folder.manifest.is_file() and checkpoint.begun(folder.checkpoints)
    known = folder.read_manifest()['borrowed'] if folder is not None and started else {}

    def one(name: str, text: str) -> Loan:
        if name != texts.NAME:
            return lend(f'family.{name}', *place(name, text, folder), known.get(name))
        return Loan(*encoders.lend(config.family, folder.path if folder else None, known.get(name)))

    return {name: one(name, text) for name, text in configs.borrowed(config).items() if name not in leave}


def place(name: str, text: str, folder: Folder | None) -> tuple[str, str]:
    """The folder and the average of a borrowed run."""
    path, average = configs.split_run(text)
    copy = folder.path / 'borrowed' / name if folder is not None else None
    return (str(copy) if copy is not None and copy.is_dir() else path), average


def lend(what: str, path: str, average: str, known: Mapping[str, Any] | None = None) -> Loan:
    """Borrow one finished run.

    Args:
      what: its name in messages, such as family.teacher.
      average: '' for ema if it exists.
      known: description of the earlier loan, which must still be available.

    Raises:
      UserError: as for `borrow`.
    """
    if not path:
        raise UserError(f'{what} is not a run; give the folder of a finished one.')
    if known:
        _check_unchanged(what, path, known)
    run = open_run(path, what=what)
    if not known and not (run.folder.read_summary() or {}).get('complete'):
        raise UserError(f'{what}: {path} is not finished; resume its training first.')
    step, state = run.restore(known['step'] if known else None)
    average = average or ('ema' if 'ema' in state['averages'] else 'current')
    _, state = run.networks(step, state, average, what=f'{what}: the average')
    description = {
        'run': str(path),
        'config': configs.plain(run.config),
        'data': dataclasses.asdict(run.family.spec),
        'step': step,
        'average': average,
        'config_hash': configs.config_hash(run.config),
        'state_sha256': run.sha256(step),
        'borrowed': run.manifest['borrowed'],
    }
    return Loan(description, jax.device_get({part: state[part] for part in ('params', 'aux', 'lent')}))


def _check_unchanged(what: str, path: str, known: Mapping[str, Any]) -> None:
    step, digest = known['step'], known['state_sha256']
    if not Folder(pathlib.Path(path)).manifest.is_file():
        problem = f'the borrowed run is no longer in {path}'
    elif open_run(path, what=what).sha256(step) != digest:
        problem = f'{path} has changed since it was borrowed: no checkpoint {step} has the hash {digest[:12]}'
    else:
        return
    raise UserError(f'{what}: {problem}. Restore it, set {what} to its new folder, or train in another --workdir.')


def describe(descriptions: Mapping[str, Any]) -> dict[str, Borrowed]:
    """The 'borrowed' part of a manifest in the form a family needs: each run's family at the end of its training."""

    def one(entry: Mapping[str, Any]) -> Family:
        if texts.NAME in entry['config']:
            return encoders.encoder(entry)
        config, lenders = configs.resolve(configs.plain(entry['config'])), describe(entry.get('borrowed', {}))
        return stages.after(families.get(config.family.name)(config, spec_from(entry['data']), lenders), entry['step'])

    return {name: Borrowed(one(entry)) for name, entry in descriptions.items()}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run on disk, ready to restore."""

    folder: Folder
    config: Config
    manifest: dict[str, Any]
    family: Family
    guides: Mapping[str, Loan] = dataclasses.field(default_factory=dict)  # loans to samplers, see `training.lending`

    def after(self, step: int) -> Family:
        """The family after `step` updates."""
        return stages.after(self.family, step)

    def blueprint(self, step: int) -> Blueprint:
        """The networks after `step` updates."""
        return Blueprint(self.after(step))

    def sha256(self, step: int) -> str:
        """The hash of a checkpoint's state; '' if there is none."""
        with contextlib.closing(Checkpoints(self.folder.checkpoints)) as checkpoints:
            return checkpoints.sha256(step)

    def restore(self, step: int | None = None) -> tuple[int, State]:
        """(step, state) of one checkpoint, by default the newest readable one."""
        checkpoints = Checkpoints(self.folder.checkpoints)
        steps = checkpoints.steps()
        if not steps:
            raise UserError(f'{self.folder.path} has no checkpoint yet; train it first.')
        if step is not None and step not in steps:
            raise UserError(f'{self.folder.path} has no checkpoint {step}; it has {", ".join(map(str, steps))}.')
        try:
            for candidate in [step] if step is not None else reversed(steps):
                try:
                    like = placement.abstract_state(self.blueprint(candidate))
                    return candidate, checkpoints.restore(like, candidate)
                except DamagedError as error:
                    told = f'Checkpoint {candidate} of {self.folder.path} is damaged ({error}).'
                    warnings.warn(told[:200], stacklevel=2)
        finally:
            checkpoints.close()
        raise UserError(f'No checkpoint of {self.folder.path} can be read.')

    @functools.cached_property
    def lent(self) -> State:
        """What borrowed runs lend to sampling and scoring.

        Raises:
          UserError: one of them is missing or has changed.
        """
        loans = {**borrow(self.config, self.folder, leave=self.family.only_to_train), **self.guides}
        return {name: loan.state for name, loan in loans.items()}

    def networks(
        self, step: int, state: State, average: str, what: str = 'evaluation.average'
    ) -> tuple[Blueprint, State]:
        """The blueprint, and the state with the parameters of `average` and what borrowed runs lend.

        'current' means the parameters of the last step, 'power:WIDTH' a power-function average made from snapshots.
        """
        blueprint, state = self.blueprint(step), {**state, 'lent': self.lent}
        if average == 'current' or not state['averages']:  # or no optimizer trained anything
            return blueprint, state
        if average.startswith('power:'):
            chosen = self._reconstructed(step, blueprint, state, average, what)
        elif average in state['averages']:
            chosen = state['averages'][average]
        else:
            known = ', '.join(['current', *state['averages']])
            raise UserError(f'{what} is {average!r}; this run has {known}.')
        return blueprint, {**state, 'params': {**state['params'], **chosen}}

    def _reconstructed(self, step: int, blueprint: Blueprint, state: State, average: str, what: str) -> Any:
        try:
            width = float(average.removeprefix('power:'))
        except ValueError:
            raise UserError(f'{what} is {average!r}; write power:WIDTH, for example power:0.07.') from None
        tracked = [entry for entry in blueprint.averages if entry.width]
        if not tracked:
            raise UserError('This run has no power-function averages; train with train.power_widths=0.05,0.1.')
        like = {name: state['params'][name] for name in tracked[0].networks}
        began = blueprint.began[tracked[0].name]
        return averages.Snapshots(self.folder.snapshots).reconstruct(width, step, like, began)


def open_run(path: str | pathlib.Path, what: str = '', config: Config = None) -> Run:
    """Open a run folder by its manifest, with its own config unless another is given.

    Raises:
      UserError: there is no run, or its manifest cannot be read.
    """
    folder = Folder(pathlib.Path(path))
    name = f'{what}: {folder.path}' if what else f'{folder.path}'
    if folder.path.suffix == '.py' and folder.path.is_file():
        raise UserError(
            f'{name} is a config, and only dry runs accept one here. Train it and give the folder of the run.'
        )
    folder.check()
    if not folder.manifest.is_file():
        raise UserError(f'{name} is not a run (no manifest.json). Train one first with genbench train.')
    try:
        values = folder.read_manifest()
        config = configs.read(folder.config) if config is None else config
        lent = families.get(config.family.name).borrows(config).keys()
        if missing := [name for name in lent if name not in values['borrowed']]:
            raise UserError(f'its manifest does not say what it borrowed as {missing[0]}.')
        family = families.get(config.family.name)(config, spec_from(values['data']), describe(values['borrowed']))
    except UserError as error:
        raise UserError(f'{name} cannot be read: {error}') from None
    return Run(folder, config, values, family)
