"""A study as data: trials with their configs and overrides, what they wait for, and the claim they test."""

import dataclasses
import importlib.util
import pathlib

from genbench import config as configs
from genbench.config import Config
from genbench.errors import UserError


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run and its evaluation.

    Attributes:
      name: its folder under DIR/trials.
      config: a config file, relative to the working directory or to the study's checkout.
      overrides: 'key=value'; '{trials}' stands for the folder that holds all trials of the study.
      after: trials that must be done before, such as a teacher.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """What `get_study()` of a file in experiments/ returns."""

    title: str
    claim: str
    trials: tuple[Trial, ...]


def load(path: str) -> Study:
    """The study of a file.

    Raises:
      UserError: no such file, no get_study, or an error inside it.
    """
    file = pathlib.Path(path)
    module_spec = importlib.util.spec_from_file_location('genbench_study', file) if file.is_file() else None
    if module_spec is None or module_spec.loader is None:
        raise UserError(f'There is no study file {path}.')
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, 'get_study'):
            raise UserError(f'The study {path} does not define get_study().')
        study = module.get_study()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'The study {path} cannot be read: {type(error).__name__}: {error}.') from None
    if not isinstance(study, Study):
        raise UserError(f'get_study() of {path} should return a Study, not {type(study).__name__}.')
    return _checked(study, file)


def _checked(study: Study, file: pathlib.Path) -> Study:
    names = [trial.name for trial in study.trials]
    for trial in study.trials:
        if names.count(trial.name) > 1:
            raise UserError(f'The study {file} has two trials called {trial.name!r}.')
        for name in trial.after:
            if name not in names[: names.index(trial.name)]:
                raise UserError(f'Trial {trial.name!r} of {file} waits for {name!r}, which is not listed before it.')
    located = [dataclasses.replace(trial, config=str(_locate(trial.config, file))) for trial in study.trials]
    return dataclasses.replace(study, trials=tuple(located))


def _locate(config: str, file: pathlib.Path) -> pathlib.Path:
    beside = file.resolve().parent.parent / config
    return beside if beside.is_file() else pathlib.Path(config)


def resolve(trial: Trial, trials: pathlib.Path) -> Config:
    """The resolved config of a trial whose study keeps its trials in a folder."""
    return configs.load(trial.config, [override.format(trials=trials) for override in trial.overrides])
