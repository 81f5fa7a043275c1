"""What makes a trial unique: its resolved config, the runs it builds on, and the code that its numbers depend on."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from genbench import config as configs
from genbench.config import Config, digest
from genbench.errors import UserError
from genbench.families import own
from genbench.reading import read_json_if_any
from genbench.studies import package
from genbench.training.files import write_atomically

FILE = 'trial.json'


@dataclasses.dataclass(frozen=True)
class Identity:
    """Hashes of a trial's parts.

    Attributes:
      training: of the config without evaluation, folders, logging and placement; borrowed runs enter by identity.
      evaluation: of the evaluation config and its grid.
      code: of the sources that numbers depend on.
    """

    training: str
    evaluation: str
    code: str

    @property
    def trial_id(self) -> str:
        return digest([self.training, self.evaluation, self.code])

    @property
    def same_config(self) -> tuple[str, str]:
        """The part that two trials share if they differ at most in code."""
        return self.training, self.evaluation


def of(config: Config, grid: Sequence[str] = (), trials: Mapping[str, str] | None = None) -> Identity:
    """The identity of a resolved config under the installed code.

    Args:
      grid: the words of the evaluation's grid.
      trials: {name: `training`} of the study's trials. These hashes replace the folders of trials it builds on, so that
        a study may be moved and a student follows its teacher.
    """
    values = configs.identity(config)
    for name, text in configs.borrowed(config).items():
        path, average = configs.split_run(text)
        values[f'family.{name}'] = _lent(path, trials or {}) + (f'@{average}' if average else '')
    evaluation = digest([configs.plain(config.evaluation), list(grid)])
    return Identity(digest(values), evaluation, code(config.family.modules))


def _lent(path: str, trials: Mapping[str, str]) -> str:
    folder = pathlib.Path(path)
    return trials.get(folder.name, folder.name) if folder.parent.name == 'trials' else path


@functools.cache
def code(modules: tuple[str, ...] = ()) -> str:
    """A hash of the user's modules and of the package's sources, except the parts that only start, show or collect."""
    found = hashlib.sha256(package.sources())
    for module, source in own.digests(modules).items():
        found.update(f'{module}\0{source}\0'.encode())
    return found.hexdigest()[:12]


def write(folder: pathlib.Path, identity: Identity, **more: Any) -> None:
    """Save the identity in a trial's folder, for the process that trains it and for the next start of the study."""
    values = {'trial_id': identity.trial_id, **dataclasses.asdict(identity), **more}
    write_atomically(folder / FILE, json.dumps(values, indent=2) + '\n')


def read(folder: pathlib.Path) -> dict[str, Any]:
    """What `write` saved; {} if there is nothing.

    Raises:
      UserError: the file exists but cannot be read.
    """
    shape = {'trial_id': str, 'training': str, 'evaluation': str, 'code': str, 'grid?': [str]}
    return read_json_if_any(folder / FILE, shape, f'Move {folder} away to repeat its trial.') or {}


def found(folder: pathlib.Path, trials: Mapping[str, str]) -> Identity | None:
    """The identity of the trial in this folder. A run in an older format is identified by its config, without code."""
    values = read(folder)
    if values:
        return Identity(values['training'], values['evaluation'], values['code'])
    snapshot = folder / 'config.json'
    if not snapshot.is_file():
        return None
    try:
        old = of(configs.read(snapshot), (), trials)
    except UserError:  # a key that no longer exists always means another config
        return Identity('', '', '')
    return dataclasses.replace(old, code='')
