"""A study as data: trials with their configs and overrides, seeds, evaluation, budget, and the claim they test."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from genbench import config as configs
from genbench import ranges, scripts, shipped
from genbench.config import Config
from genbench.errors import UserError, did_you_mean
from genbench.report import claims
from genbench.report.claims import Comparison
from genbench.studies import sweep as sweeps
from genbench.studies.budget import Budget

# Figures that a study may request for its page.
FIGURES = ('leaderboard', 'nfe', 'flops', 'seconds', 'likelihood', 'samples', 'ablation', 'losses')
_NAME = re.compile(r'[\w.+=-]+')
_LENT = re.compile(r'\{trials\}/([\w.+=-]+)')
Overrides = Sequence[str] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run and its evaluation. If the study has several seeds, one run per seed.

    Attributes:
      name: name of its folder under DIR/trials.
      config: a config file, relative to the working directory or to the folder with the study file; or the name of a
        config that ships with genbench, such as digits/diffusion.
      overrides: 'key=value' texts, or a mapping of keys to values. '{trials}' stands for the folder that holds all
        trials of the study.
      after: trials that must finish first, such as a teacher. With several seeds, the trial of the same seed.
      grid: axes of its evaluation, as for `genbench evaluate --grid`. They replace the study's.
      matched: whether it gets the study's budget. With False, a closed form or a reference keeps its config's values.
      variant: its name without the seed.
    """

    name: str
    config: str
    overrides: Overrides = ()
    after: Sequence[str] = ()
    grid: Sequence[str] = ()
    matched: bool = True
    variant: str = ''


@dataclasses.dataclass(frozen=True)
class Study:
    """The return value of `get_study()` in a file in experiments/.

    Attributes:
      title, claim: shown on the page.
      tests: the claim as comparisons of numbers (see `genbench.report.claims`), from which the page computes a verdict.
      trials: the variants. `variants` makes them from a sweep.
      seeds: training seeds. Each trial is run with each of them. (): the seed in its config.
      evaluation: overrides of evaluation keys for all trials.
      grid: axes of the evaluation of all trials; () for the samplers of each config.
      figures: what the page should show; () for everything it can.
      budget: what each trial may spend.
      baseline: the variant with which the others are compared.
      slurm: what each trial requests from a cluster: partition, time, nodes, gpus (per node), cpus (per task), account,
        or other long options of sbatch, such as {'mem': '32G'}.
    """

    title: str
    claim: str
    trials: Sequence[Trial]
    seeds: Sequence[int] = ()
    evaluation: Overrides = ()
    grid: Sequence[str] = ()
    figures: Sequence[str] = ()
    budget: Budget | None = None
    baseline: str = ''
    slurm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tests: Sequence[Comparison] = ()


def variants(config: str, sweep: sweeps.Sweep, *, name: str = '', **options: Any) -> tuple[Trial, ...]:
    """One trial for each choice of a sweep over one config.

    Args:
      name: the prefix of their names.
      options: fields of every `Trial`. Their overrides come before those of the choice.
    """
    overrides = _texts(options.pop('overrides', ()))
    return tuple(
        Trial(
            '-'.join(filter(None, (name, sweeps.label(choice)))), config, (*overrides, *sweeps.words(choice)), **options
        )
        for choice in sweep
    )


def load(path: str, overrides: Sequence[str] = ()) -> Study:
    """Load a study from a file, check its trials, and expand them over the seeds.

    Args:
      overrides: 'key=value' for every trial, applied after its own. A number of steps replaces the budget.

    Raises:
      UserError: there is no such file, it has no get_study, it raises an error, or the study cannot be run.
    """
    study, file = read_file(path), shipped.find(path, shipped.STUDIES)
    try:
        return _overridden(_seeded(_checked(study, file)), overrides)
    except UserError as error:
        raise UserError(f'The study {path} cannot be run: {error}') from None


def read_file(path: str) -> Study:
    """The result of `get_study()` in a study file, as it is; another study may be a change of it.

    Raises:
      UserError: there is no such file, it has no get_study, or it raises an error.
    """
    return scripts.call(path, shipped.STUDIES, 'get_study', 'study file', _returned)


def _returned(study: Any) -> Study:
    if not isinstance(study, Study):
        raise UserError(f'get_study() should return a Study, not {type(study).__name__}.')
    return study


def _checked(study: Study, file: pathlib.Path) -> Study:
    _check_types(study)
    names = [trial.name for trial in study.trials]
    for trial in study.trials:
        if names.count(trial.name) > 1:
            raise UserError(f'it has two trials with the name {trial.name!r}.')
        for name in trial.after:
            if name not in names[: names.index(trial.name)]:
                raise UserError(f'trial {trial.name!r} waits for {name!r}, which is not listed before it.')
        for name in _LENT.findall(' '.join(_texts(trial.overrides))):
            if name not in trial.after:
                raise UserError(f'trial {trial.name!r} uses {{trials}}/{name}, but does not wait for it; '
                                f'add after=({name!r},).')  # fmt: skip
    if study.baseline and study.baseline not in names:
        raise UserError(f'its baseline {study.baseline!r} is not a trial. {did_you_mean(study.baseline, names)}')
    claims.check(study.tests, [trial.variant or trial.name for trial in study.trials])
    for figure in study.figures:
        if figure not in FIGURES:
            raise UserError(f'it asks for an unknown figure {figure!r}. {did_you_mean(figure, FIGURES)}')
    return dataclasses.replace(study, trials=tuple(_complete(study, trial, file) for trial in study.trials))


def _check_types(study: Study) -> None:
    for key, kind in (('title', str), ('claim', str), ('baseline', str), ('slurm', Mapping)):
        if not isinstance(getattr(study, key), kind):
            raise UserError(f'its {key} should be a {kind.__name__}, not {ranges.shown(getattr(study, key))}.')
    trials = study.trials if isinstance(study.trials, Sequence) else ()
    if not trials or not all(isinstance(trial, Trial) for trial in trials):
        raise UserError('its trials should be a tuple of at least one Trial.')
    for trial in study.trials:
        if not isinstance(trial.name, str) or not _NAME.fullmatch(trial.name) or trial.name in ('.', '..', 'real'):
            raise UserError(
                f'{trial.name!r} is not a valid trial name; since it names a folder, use letters, digits and _-.+='
            )
        for key, wanted in (('config', str), ('matched', bool), ('variant', str)):
            if not isinstance(getattr(trial, key), wanted):
                value = ranges.shown(getattr(trial, key))
                raise UserError(f'{key} of trial {trial.name!r} should be a {wanted.__name__}, not {value}.')
        for key in ('after', 'grid', 'overrides'):
            _check_texts(f'{key} of trial {trial.name!r}', getattr(trial, key))
    for key in ('grid', 'figures', 'evaluation'):
        _check_texts(f'its {key}', getattr(study, key))
    seeds = study.seeds
    if not isinstance(seeds, Sequence) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f'its seeds should be integers of at least 0, not {ranges.shown(seeds)}.')
    for seed in seeds:
        ranges.SEED.check('One of its seeds', seed)
    if len(set(seeds)) < len(seeds):
        raise UserError(f'its seeds {tuple(seeds)} contain one twice.')
    if study.budget is not None and not isinstance(study.budget, Budget):
        raise UserError(f'its budget should be a Budget, not {study.budget!r}.')


def _check_texts(what: str, values: Any) -> None:
    texts = not isinstance(values, str) and isinstance(values, Sequence) and all(isinstance(v, str) for v in values)
    if not texts and not isinstance(values, Mapping):
        raise UserError(f'{what} should be a tuple of strings, not {values!r}.')


def _texts(overrides: Overrides) -> tuple[str, ...]:
    return sweeps.words(overrides) if isinstance(overrides, Mapping) else tuple(overrides)


def _complete(study: Study, trial: Trial, file: pathlib.Path) -> Trial:
    """The trial with the settings that the study states for all, and the path of its config."""
    for override in _texts(study.evaluation):
        if not override.startswith(('evaluation.', 'data.data_dir')):
            raise UserError(f'its evaluation sets {override.partition("=")[0]}, which is not a key of evaluation.')
    return dataclasses.replace(
        trial,
        config=str(_locate(trial.config, file)),
        overrides=(*_texts(study.evaluation), *_texts(trial.overrides)),
        after=tuple(trial.after),
        grid=tuple(trial.grid or study.grid),
        variant=trial.variant or trial.name,
    )


def _locate(config: str, file: pathlib.Path) -> pathlib.Path:
    beside = file.resolve().parent.parent / config
    return beside if beside.is_file() else pathlib.Path(config)


def _seeded(study: Study) -> Study:
    """Each trial once per seed. With several seeds, NAME becomes NAME-s0, NAME-s1, …."""
    if not study.seeds:
        return study
    several = len(study.seeds) > 1

    def name(variant: str, seed: int) -> str:
        return f'{variant}-s{seed}' if several else variant

    def seeded(trial: Trial, seed: int) -> Trial:
        lent = [_LENT.sub(lambda match: f'{{trials}}/{name(match[1], seed)}', text) for text in trial.overrides]
        return dataclasses.replace(
            trial,
            name=name(trial.name, seed),
            overrides=(*lent, f'train.seed={seed}'),
            after=tuple(name(before, seed) for before in trial.after),
        )

    trials = tuple(seeded(trial, seed) for seed in study.seeds for trial in study.trials)
    return dataclasses.replace(study, trials=trials)


def _overridden(study: Study, overrides: Sequence[str]) -> Study:
    trials = tuple(dataclasses.replace(trial, overrides=(*trial.overrides, *overrides)) for trial in study.trials)
    steps = any(text.startswith('train.num_steps=') for text in overrides)
    return dataclasses.replace(study, trials=trials, budget=None if steps else study.budget)


def resolve(trial: Trial, trials: pathlib.Path) -> Config:
    """Resolve the config of a trial. `trials` is the folder of the study's trials.

    Raises:
      UserError: the config does not exist, or an override does not fit. The message names the trial.
    """
    try:
        return configs.load(trial.config, [override.replace('{trials}', str(trials)) for override in trial.overrides])
    except UserError as error:
        raise UserError(f'Trial {trial.name!r}: {error}') from None
