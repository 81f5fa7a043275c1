"""Run the recipe of a published number, and compare what it reaches. `studies.checks` has the cheap checks."""

import contextlib
import dataclasses
import datetime
import json
import math
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genbench import config as configs
from genbench.config import Config
from genbench.data import opening
from genbench.errors import Unprepared, UserError
from genbench.evaluation import harness, monitor, results
from genbench.evaluation.protocol import Protocol
from genbench.reading import read_json_if_any
from genbench.studies import ledger, package, records
from genbench.training import installed, processes, runs
from genbench.training.checkpoint import Checkpoints
from genbench.training.files import write_atomically
from genbench.training.metrics import ROW, read_rows

CODE = 'code.json'  # in the folder of a run: the code that started it
DENSITIES = ('ais_nats', 'log_likelihood_nats')  # log-densities of images with values in [0, 1]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A published number and that of a run.

    Attributes:
      found: the result row that was compared.
      protocol: {key of the stated protocol that differs: (stated, here)}.
      other: what else differs from the paper or the recipe, in words.
      folder: the run.
      seconds: what training and evaluation took; None for an evaluation that had been done before.
      code: the code that trained and scored it; '' if that is not the present code throughout.
    """

    row: ledger.Row
    found: Mapping[str, Any]
    protocol: Mapping[str, tuple[Any, Any]]
    other: tuple[str, ...]
    folder: pathlib.Path = pathlib.Path()
    seconds: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    code: str = ''

    @property
    def within(self) -> bool:
        return self.row.within(self.found['value'])

    def lines(self) -> Iterator[str]:
        """The expected and the measured number, the tolerance, and every difference."""
        row, got = self.row, self.found['value']
        spread = self.found.get('std_err') or self.found.get('sd')
        yield ledger.heading(row)
        yield f'expected  {ledger.published(row)}'
        if got is None:
            yield f'got       {self.found["metric"]} no number'
        else:
            noise = 'samples' if self.found.get('sd') else 'images'
            noise = f'{row.seeds} trainings' if row.seeds > 1 else f'{noise}; training is not in it'
            told = f' ± {spread:.2g}, standard error over {noise}' if spread else ''
            yield f'got       {self.found["metric"]} {got:.4f}{told}'
        yield f'tolerance {row.tolerance:g}: {row.reason}'
        for key, (stated, here) in self.protocol.items():
            yield f'protocol  {key}: {stated!r} → {here!r}'
        yield from (f'open      {words}' for words in row.open)
        yield from (f'differs   {words}' for words in self.other)
        if not self.protocol and not self.other:
            yield 'protocol  as stated, as far as it is stated'
        gap = math.nan if got is None else got - row.value
        yield f'{ledger.REPRODUCED if self.within else ledger.GAP}: {gap:+.4f}'


def resolve(row: ledger.Row, *more: str) -> Config:
    """The resolved config of a row's recipe.

    Raises:
      UserError: there is no recipe, or it does not resolve.
    """
    return configs.load(str(row.path), [*row.overrides, *row.evaluation, *more])


def compare(row: ledger.Row, *, run: str = '', workdir: str = '', data_dir: str = '') -> Comparison | None:
    """Train the recipe and evaluate it, or only evaluate a finished run; once for each seed of the row.

    Returns:
      None if training was interrupted. The same call then continues.

    Raises:
      UserError: there is no recipe, the run does not exist, or `train` or `evaluate` raised one.
    """
    if row.seeds > 1:
        return _over_seeds(row, bool(run), run or workdir or f'runs/baselines/{row.id}', data_dir)
    place = [f'data.data_dir={data_dir}'] if data_dir else []
    recipe = resolve(row, *place)
    if row.images and (why := opening.lacking(recipe.data)):
        raise Unprepared(f'{row.id} needs {row.images}. {why}')
    folder = pathlib.Path(run or workdir or f'runs/baselines/{row.id}')
    other = list(row.differs)
    if not run:
        lenders = _lenders(row, folder, place)
        if lenders is None:
            return None
        recipe = resolve(row, *place, *lenders)
        if not _train(recipe, folder):
            return None
    else:
        trained = configs.lasting(runs.open_run(folder).config)
        if not (runs.Folder(folder).read_summary() or {}).get('complete'):
            raise UserError(f'{folder} is not finished; only a finished run can be held against a published number.')
        changed = configs.difference(configs.lasting(recipe), trained)
        other += [f'{key} is {here!r}, {wanted!r} in the recipe' for key, (wanted, here) in changed.items()]
        other += _other_lenders(row, folder)
    step, overrides = _chosen(folder), [*row.evaluation, *place]
    seconds = _evaluate(folder, overrides, step)
    found = _measured(row, harness.opened(folder, overrides), step)
    flat = Protocol(found['protocol']).flatten()
    here = {key: flat.get(key) for key in row.stated}
    differences = {key: (stated, here[key]) for key, stated in row.stated.items() if here[key] != stated}
    lent = [] if run else [pathlib.Path(one.partition('=')[2]) for one in lenders or ()]
    ours = all(map(by_this_code, [folder, *lent]))
    if not ours:
        other.append('the run was trained by other code; move it aside to train anew')
    return Comparison(row, found, differences, tuple(other), folder, seconds, package.code() if ours else '')


def _train(recipe: Config, folder: pathlib.Path) -> bool:
    """Whether the training of a recipe, which this starts or resumes, is complete."""
    if not runs.Folder(folder).manifest.is_file():  # before training, so that a run that is killed has it
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CODE, json.dumps({'code': package.code()}) + '\n')
    return monitor.train(recipe, folder).complete


def _lenders(row: ledger.Row, folder: pathlib.Path, place: Sequence[str]) -> list[str] | None:
    """Overrides that name the runs that a recipe builds on, each trained first.

    Their folders lie beside that of the run and are named by their configs, so that rows and seeds share them.

    Returns:
      None if training was interrupted.
    """
    overrides = []
    for name, (path, more) in row.lender_recipes.items():
        recipe = configs.load(str(path), [*more, *place])
        where = folder.parent / f'{name}-{configs.config_hash(recipe)}'
        if not _train(recipe, where):
            return None
        overrides.append(f'family.{name}={where}')
    return overrides


def _other_lenders(row: ledger.Row, folder: pathlib.Path) -> list[str]:
    """How the runs that a finished run borrowed differ from those of its recipe."""
    borrowed, found = runs.Folder(folder).read_manifest()['borrowed'], []
    for name, (path, more) in row.lender_recipes.items():
        wanted = configs.lasting(configs.load(str(path), more))
        here = configs.lasting(configs.resolve(configs.plain(borrowed[name]['config'])))
        changed = configs.difference(wanted, here)
        found += [f'{key} of {name} is {one!r}, {other!r} in the recipe' for key, (other, one) in changed.items()]
    return found


def by_this_code(folder: pathlib.Path) -> bool:
    """Whether the present code started a run. Otherwise the commit or the release says so."""
    if kept := read_json_if_any(folder / CODE, {'code': str}):
        return kept['code'] == package.code()
    manifest = runs.Folder(folder).read_manifest()
    here = installed.commit(), installed.versions()['genbench']
    if here[0].endswith('+'):  # changed since that commit, and not known how
        return False
    return (manifest.get('commit', ''), manifest.get('versions', {}).get('genbench')) == here


def _evaluate(folder: pathlib.Path, overrides: Sequence[str], step: int | None) -> dict[str, float | None]:
    """Score a run, and return what its training and this took, None if everything had been scored before."""
    began = time.monotonic()
    scored = harness.evaluate(folder, overrides, step=step)
    taken = round(time.monotonic() - began, 1) if scored else None
    return {'training': (runs.Folder(folder).read_summary() or {}).get('training_seconds'), 'evaluation': taken}


def _chosen(folder: pathlib.Path) -> int | None:
    """The checkpoint that early stopping chooses, the best by a score (`checkpoint.keep_best`); None: the newest."""
    run = runs.open_run(folder)
    options = run.config.checkpoint
    if not options.keep_best or not options.best_metric:
        return None
    logged = {row['step']: row.get(options.best_metric) for row in read_rows(run.folder.metrics, ROW)}
    with contextlib.closing(Checkpoints(run.folder.checkpoints)) as checkpoints:
        scores = {step: one for step in checkpoints.steps() if (one := logged.get(step)) is not None}
    return (max if options.best_mode == 'max' else min)(scores, key=scores.__getitem__)


def _over_seeds(row: ledger.Row, finished: bool, folder: str, data_dir: str) -> Comparison | None:
    """The mean over trainings in FOLDER/seed_0, seed_1, …, which differ in their seed alone."""
    parts = []
    for seed in range(row.seeds):
        one = dataclasses.replace(row, seeds=1, overrides=(*row.overrides, f'train.seed={seed}'))
        place = {'run' if finished else 'workdir': f'{folder}/seed_{seed}'}
        part = compare(one, data_dir=data_dir, **place)
        if part is None:
            return None
        parts.append(part)
    apart = {json.dumps(dict(part.found['protocol']), sort_keys=True) for part in parts}
    if len(apart) > 1:
        raise UserError(f'The runs in {folder} were not evaluated under one protocol; move it aside to train anew.')
    values = [part.found['value'] for part in parts]
    spread: dict[str, float | None] = {'value': None, 'sd': None, 'std_err': None}
    if None not in values:
        sd = statistics.stdev(values)
        spread = {'value': statistics.fmean(values), 'sd': sd, 'std_err': sd / math.sqrt(row.seeds)}
    first = parts[0]
    code = first.code if all(part.code == first.code for part in parts) else ''
    told = tuple(dict.fromkeys(words for part in parts for words in part.other))
    found = {**first.found, **spread, 'values': values}
    return dataclasses.replace(first, row=row, found=found, other=told, seconds=_summed(parts), code=code)


def _summed(parts: Sequence[Comparison]) -> dict[str, float | None]:
    """What the parts took together, None if one of them does not say."""
    each = {key: [part.seconds.get(key) for part in parts] for key in parts[0].seconds}
    return {key: None if None in taken else sum(one for one in taken if one is not None) for key, taken in each.items()}


def _measured(row: ledger.Row, run: runs.Run, step: int | None) -> dict[str, Any]:
    """The result row that the ledger asks for, of this evaluation and no other of the same run.

    Nats are computed from bits per dimension, and those of `DENSITIES` are of images with values in [0, 1].
    `logit_log_likelihood_nats` is the density of a dequantised image's logits, a part of the row of a likelihood.
    """
    metric = 'bits_per_dim' if row.metric in ('nats', 'logit_log_likelihood_nats', *DENSITIES) else row.metric
    options, folder = run.config.evaluation, run.folder.path
    average = options.average if run.family.averages else 'current'
    wanted = {**{key: options[key] for key in ('num_samples', 'sets', 'seed')}, **row.measured}
    found = [entry for entry in results.read(run.folder.results) if step in (None, entry['checkpoint_step'])]
    fitting = [
        entry for entry in found
        if (entry['metric'], entry['split'], entry['config_hash'])
        == (metric, options.split, configs.config_hash(run.config))
        and entry['protocol'].get('average', average) == average
        and all(entry['protocol'].get(key) == row.measured[key] for key in row.measured)
        and all(entry['protocol'][key] == value for key, value in wanted.items() if key in entry['protocol'])
    ]  # fmt: skip
    if not fitting:
        names = ', '.join(sorted({entry['metric'] for entry in found}))
        raise UserError(f'{folder} has no {row.metric} as {row.id} is measured ({dict(row.measured)}); it has {names}.')
    newest = max(enumerate(fitting), key=lambda pair: (pair[1]['checkpoint_step'] or 0, pair[0]))[1]
    if metric == row.metric or newest['value'] is None:
        return newest
    nats = run.family.spec.num_dims * math.log(2)
    if row.metric == 'logit_log_likelihood_nats':
        bits = (newest.get('details') or {}).get('density_of_logits')
        if bits is None:
            raise UserError(f'{folder} has no density of logits; {row.id} needs a run with network.name=maf.')
        return {**newest, 'metric': row.metric, 'value': -bits * nats, 'std_err': None}
    error, value = newest.get('std_err'), newest['value'] * nats
    if row.metric in DENSITIES:  # the bins of values in [0, 1] are 1 / levels wide
        value = run.family.spec.num_dims * math.log(run.family.spec.levels) - value
    name = row.metric if row.metric in DENSITIES else 'nats'
    return {**newest, 'metric': name, 'value': value, 'std_err': error and error * nats}


def record(comparison: Comparison, folder: pathlib.Path = ledger.RECORDS) -> pathlib.Path:
    """Save the measurement as evidence for its row."""
    row, found, machine = comparison.row, comparison.found, processes.machine()
    kept = {
        'id': row.id,
        'metric': found['metric'],
        'expected': row.value,
        'value': found['value'],
        'std_err': found.get('std_err'),
        'sd': found.get('sd'),
        'values': found.get('values'),
        'n': found['n'],
        'checkpoint_step': found['checkpoint_step'],
        'config': row.config,
        'overrides': list(row.overrides),
        'config_hash': found['config_hash'],
        'protocol': found['protocol'],
        'differences': {key: list(pair) for key, pair in comparison.protocol.items()},
        'open': list(row.open),
        'differs': list(comparison.other),
        **records.origin(row),
        'code': comparison.code,
        'commit': installed.commit(),
        'versions': installed.versions(),
        'devices': machine['devices'],
        'cores': machine['cores'],
        'processor': records.processor(),
        'seconds': dict(comparison.seconds),
        'curve': records.curve(runs.Folder(comparison.folder).metrics),
        'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
        'command': records.renewal(row),
    }
    path = folder / f'{row.id}.json'
    write_atomically(path, json.dumps(kept, indent=2) + '\n')
    return path
