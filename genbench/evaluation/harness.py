"""Score one checkpoint of a run: sample distances for each sampler, likelihoods, and costs."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genbench import config as configs
from genbench.config import Config
from genbench.data import conditions, sources
from genbench.data.conditions import Given
from genbench.errors import UserError, explained_disk_errors
from genbench.evaluation import bounds, clip_score, exploration, further, grid, plane, scoring
from genbench.evaluation.images import ImageSet
from genbench.evaluation.likelihood import LikelihoodScorer
from genbench.evaluation.parts import Parts
from genbench.evaluation.protocol import Protocol, picture
from genbench.evaluation.publishing import publish
from genbench.evaluation.reference import RealSets, sample_metrics
from genbench.evaluation.results import RANKING, Results
from genbench.evaluation.samples import SampleStore, drawn_conditions, slug
from genbench.families.base import Likelihood
from genbench.reading import read_rows
from genbench.training import lending, processes, runs, samplers, sampling, telemetry
from genbench.training import state as states
from genbench.training.metrics import ROW
from genbench.training.state import State

SHOWN = 100  # images in a saved grid


@explained_disk_errors()
def evaluate(
    workdir: str | pathlib.Path,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    cells: Sequence[str] = (),
    quiet: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Score a run and return the new rows of its results.jsonl. Rows that exist under the same protocol are kept.

    Joined processes draw, score and keep their own images each. The first one compares and writes, and has the rows.

    Args:
      overrides: 'evaluation.key=value' changes to the run's config.
      step: a checkpoint; by default the newest.
      cells: axes 'key=value,value' whose product is evaluated instead of the config's samplers (see `grid`).
      report: called with the number of finished parts of the evaluation and the number of all parts.
    """
    run = opened(workdir, overrides)
    config = run.config
    step, state = run.restore(step)
    run, wanted = lent_guides(run, grid.cells(cells, run.after(step), config.evaluation))
    for line in bounds.lacking(config, beside_reference=True) if processes.is_first() else ():
        print(f'genbench: {line}', file=sys.stderr, flush=True)
    added = Evaluation(run, config, step, state, wanted, quiet or not processes.is_first()).run_all(report)
    processes.first_does(lambda: publish(run, step, added))
    return added


def opened(workdir: str | pathlib.Path, overrides: Sequence[str]) -> runs.Run:
    """A run with changes of its evaluation.

    Raises:
      UserError: there is no run, or an override changes more than its evaluation.
    """
    run = runs.open_run(workdir)
    for override in overrides:
        if not override.startswith(('evaluation.', 'data.data_dir')):
            raise UserError(f'{override!r} would change the run; evaluate accepts only evaluation.* and data.data_dir.')
    return runs.open_run(workdir, config=configs.resolve(configs.plain(run.config), overrides))


def lent_guides(run: runs.Run, cells: Sequence[grid.Cell]) -> tuple[runs.Run, list[grid.Cell]]:
    run, chosen = lending.guided(run, [cell.sampler for cell in cells])
    return run, [dataclasses.replace(cell, sampler=sampler) for cell, sampler in zip(cells, chosen, strict=True)]


class Evaluation:
    """One checkpoint under one evaluation config."""

    def __init__(self, run: runs.Run, config: Config, step: int, state: State, cells: Sequence[grid.Cell], quiet: bool):
        self.run, self.options, self.step, self.cells, self.quiet = run, config.evaluation, step, cells, quiet
        self.state = state
        self.family = run.after(step)
        self.spec = self.family.spec
        sample_metrics(self.options.metrics)
        further.check(self.family, self.options, [cell.sampler for cell in cells])
        self.averages = list(dict.fromkeys(cell.average for cell in cells))
        for average in self.averages:
            run.networks(step, state, average)  # report a missing average before computing anything
        fields = (*self.family.fields, *clip_score.fields(self.family, self.options))
        self.real = RealSets(config, quiet, fields, self.spec)
        self.results = Results(run.folder.results)
        self.config_hash = configs.config_hash(run.config)
        self.borrowed = {name: entry['state_sha256'][:12] for name, entry in run.manifest['borrowed'].items()}
        self.added: list[dict[str, Any]] = []

    def run_all(self, report: Callable[[int, int], None] | None = None) -> list[dict[str, Any]]:
        # Read this first, to report a damaged log before computing or writing anything.
        spent = self._training_costs() if 'speed' in self.options.metrics else {}
        if self.real.names:
            _ = self.real.network  # report an unavailable network before sampling
        parts = Parts(self._num_parts(), self.quiet, report)
        for average in self.averages:
            for title, work in Weights(self, average).steps():
                with parts.part(title):
                    work()
        if 'speed' in self.options.metrics:
            processes.first_does(lambda: self._add_costs(spent))
        return self.added

    @functools.cached_property
    def likelihoods(self) -> list[Likelihood]:
        """The family's likelihoods that the config asks for."""
        asked = self.options.likelihoods
        return [one for one in self.family.likelihoods if not asked or one.method in asked]

    def _num_parts(self) -> int:
        """The number of `Weights.steps` over all averages."""
        asked = self.options.metrics
        drawn = len(self.cells) + ('exploration' in asked) if self.real.names else 0
        likelihoods = max(1, len(self.likelihoods)) if 'likelihood' in asked else 0
        return drawn + len(self.averages) * (likelihoods + len(further.asked(asked)))

    @property
    def explored(self) -> str:
        """The average whose samples are shown step by step: the config's own if it is among those evaluated."""
        return self.options.average if self.options.average in self.averages else self.averages[0]

    def has(self, metric: str, protocol: Mapping[str, Any]) -> bool:
        """Whether there is such a row; only the first process knows."""
        return self.results.has(metric, protocol, self.step, self.config_hash)

    def add(self, metric: str, value: float | None, *, protocol: Mapping[str, Any], **row: Any) -> None:
        if self.has(metric, protocol):
            return
        row = self.results.add(
            family=self.family.name, dataset=self.spec.name, metric=metric, value=value, protocol=protocol,
            checkpoint_step=self.step, config_hash=self.config_hash, split=row.pop('split', self.options.split), **row,
        )  # fmt: skip
        self.added.append(row)

    def given(self, shard: int, count: int, seed: int | None = None) -> Given:
        """The conditions of the images of a shard, taken from rows drawn from the train split."""
        chosen = self.options.seed if seed is None else seed
        return drawn_conditions(self.family, self.real.train, chosen, shard, count)

    def sampling_protocol(self, cell: grid.Cell, average: str) -> dict[str, Any]:
        sampler = cell.sampler
        return {
            **sampler.protocol,
            'nfe': self.family.evaluations(sampler),
            'average': average,
            'borrowed': self.borrowed,
            'num_samples': self.options.num_samples,
            'sets': self.options.sets,
            'seed': cell.seed,
            'noise': sampling.NOISE,
            **self.told('rows of train at random'),
            **self.real.resized,
        }

    def told(self, source: str) -> dict[str, Any]:
        """The protocol entries for the conditions and for the rows they come from."""
        named = list(conditions.named(self.run.config.family))
        return {'given': named, 'given_from': source} if named else {'given': 'nothing'}

    def _add_costs(self, spent: Mapping[str, tuple[Any, dict[str, Any]]]) -> None:
        for cell in self.cells:
            nfe = self.family.evaluations(cell.sampler)
            self.add('evaluations_per_image', nfe, protocol=cell.sampler.protocol, sampler=cell.sampler.name, nfe=nfe,
                     kind='cost')  # fmt: skip
        protocol = {'devices': self.run.manifest['devices'], 'without': 'borrowed runs'}
        for metric, (value, said) in spent.items():
            if value:
                self.add(metric, value, protocol={**protocol, **said}, kind='cost', split='train')

    def _training_costs(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """The cost of training up to this checkpoint: (value, further protocol entries) by metric."""
        counted = telemetry.definition(telemetry.read_starts(self.run.folder.starts))
        trained = {name for update in self.family.updates for name in update.networks}
        logged = [row for row in read_rows(self.run.folder.metrics, ROW) if row['step'] == self.step]
        parameters = sum(states.count(tree) for name, tree in self.state['params'].items() if name in trained)
        flops = logged[-1].get('train/flops') if logged and counted else None
        return {
            'parameters': (parameters, {}),
            'training_flops': (flops, {'counted': counted}),
            'training_seconds': (logged[-1].get('wall_time') if logged else None, {}),
        }


class Weights:
    """One average of a checkpoint's parameters, on the devices."""

    def __init__(self, evaluation: Evaluation, average: str):
        self.evaluation, self.options = evaluation, evaluation.options
        self.blueprint, state = evaluation.run.networks(evaluation.step, evaluation.state, average)
        self.state = sampling.replicate(sampling.parts(state))
        self.chosen = average
        self.average = average if self.blueprint.averages else 'current'
        self.drawer = sampling.Drawer(self.blueprint, self.options.batch_size)
        self.kept = evaluation.run.folder.path / 'evaluation'  # samples, and log-likelihoods of single images

    def store(self, cell: grid.Cell) -> SampleStore:
        one = self.evaluation
        identity = {
            'config_hash': one.config_hash, 'step': one.step, 'average': self.average, 'borrowed': one.borrowed,
            **cell.sampler.protocol, 'seed': cell.seed, 'noise': sampling.NOISE,
        }  # fmt: skip
        return SampleStore(
            folder=self.kept / 'samples' / f'{slug(cell.sampler)}-{Protocol(identity).hash}',
            drawer=self.drawer, state=self.state, sampler=cell.sampler, seed=cell.seed,
            batch_size=self.options.batch_size, given=functools.partial(one.given, seed=cell.seed),
            conditions={'batch_size': self.options.batch_size, 'machine': processes.machine()}, quiet=one.quiet,
        )  # fmt: skip

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """The steps of evaluating these parameters, each with a title."""
        one = self.evaluation
        found: list[tuple[str, Callable[[], None]]] = []
        if one.real.names:
            cells = [cell for cell in one.cells if cell.average == self.chosen]
            found += [(slug(cell.sampler), functools.partial(self.score_samples, cell)) for cell in cells]
            if 'exploration' in self.options.metrics and self.chosen == one.explored:
                found.append(('pictures', functools.partial(self.explore, cells)))
        if 'likelihood' in self.options.metrics:
            found += [(way.method, functools.partial(self.score_likelihood, way)) for way in one.likelihoods]
            if not one.likelihoods:
                found.append(('no likelihood', self.add_no_likelihood))
        parts = further.asked(self.options.metrics)
        return found + [(part.title, functools.partial(part.score, self)) for part in parts]

    def score_samples(self, cell: grid.Cell) -> None:
        one, real = self.evaluation, self.evaluation.real
        drawn = one.sampling_protocol(cell, self.average)
        protocols = {name: {**drawn, **real.protocol(name)} for name in real.names}
        missing = processes.agreed(
            [name for name in real.names if not one.has(scoring.called(name, real.network), protocols[name])]
        )
        if not missing:
            return
        store, total = self.store(cell), self.options.sets * self.options.num_samples
        # Set k consists of the images k · n … (k + 1) · n − 1 of the seed.
        sets = real.extract_sets(store.images(*processes.part(0, total)), self.options.sets)
        scenes = real.scenes(missing, sets)
        columns = {'sampler': cell.sampler.name, 'nfe': drawn['nfe'], 'seed': cell.seed}

        def score() -> None:
            scores, speed = scoring.score(scenes), store.speed(total)
            if 'speed' in self.options.metrics and speed is not None:
                one.add('sampling_images_per_second', speed, protocol={**drawn, **store.conditions}, kind='cost',
                        split='train', n=total, **columns)  # fmt: skip
            for name, row in scores.items():
                one.add(protocol=protocols[name], split=real.reference_split(name), **row, **columns)
            count = self.options.num_samples
            shown = store.images(0, count if one.spec.is_plane else min(SHOWN, count))
            sampling.save_grid(one.run.folder.samples / picture(drawn, self.options), shown, one.spec)

        processes.first_does(score)

    def explore(self, cells: Sequence[grid.Cell]) -> None:
        """Draw pictures of how this checkpoint samples, with the sampler on the leaderboard; see `exploration`."""
        if 'features' in self.evaluation.real.outputs:
            _ = self.evaluation.real.reference  # all processes compute it together
        processes.first_does(lambda: self._explore(cells))

    def _explore(self, cells: Sequence[grid.Cell]) -> None:
        one, distances = self.evaluation, [self._distance(cell) for cell in cells]
        samplers = [cell.sampler for cell in cells]
        best = samplers[distances.index(min(distances))] if min(distances) < np.inf else None
        followed = exploration.chosen(samplers, best)
        sampler = best or followed
        store = self.store(grid.Cell(self.average, sampler, self.options.seed))
        identity = {'config_hash': one.config_hash, 'step': one.step, 'average': self.average, 'seed': store.seed,
                    'noise': sampling.NOISE, 'best': dict(Protocol(sampler.protocol))}  # fmt: skip
        folder, parameters = one.run.folder.path / 'exploration', (self.blueprint, self.state)
        if one.spec.is_plane:
            likelihood, options = next(iter(one.likelihoods), None), self.options
            points = plane.Explorer(*parameters, sampler, followed, likelihood, options.seed, options.batch_size)
            points.write(folder, identity, one.given, one.real, options.num_samples)
            return
        explorer = exploration.Explorer(*parameters, sampler, followed, self.options.seed)
        explorer.write(folder, identity, next(store.batches(0, exploration.IMAGES)), one.given, one.real)

    def _distance(self, cell: grid.Cell) -> float:
        """The distance used for ranking, the first of `RANKING` that was computed; infinite if there is none."""
        one, drawn = self.evaluation, Protocol(self.evaluation.sampling_protocol(cell, self.average))
        found = {row['metric']: row['value'] for row in one.results.rows
                 if row['value'] is not None
                 and (row['checkpoint_step'], row['config_hash']) == (one.step, one.config_hash)
                 and all(row['protocol'].get(key) == value for key, value in drawn.items())}  # fmt: skip
        return next((found[name] for name in RANKING if name in found), np.inf)

    def add_no_likelihood(self) -> None:
        none = {'likelihood': 'none'}
        processes.first_does(lambda: self.evaluation.add('bits_per_dim', None, protocol=none, kind='none', n=0))

    def score_likelihood(
        self,
        likelihood: Likelihood,
        split: sources.Arrays | None = None,
        more: Callable[[], dict[str, float]] = dict,
        copies: int = 1,
    ) -> None:
        """Return one row. `copies` is how often an image is in memory; `more` computes further details."""
        one, options = self.evaluation, self.options
        split = one.real.split if split is None else split
        if len(split) < 2:
            raise UserError(f'ais has one image of {options.split}, so there is no standard error. Score two or more '
                            'with evaluation.split or evaluation.ais.num_images.')  # fmt: skip
        protocol = {**likelihood.protocol, 'method': likelihood.method, 'average': self.average,
                    'borrowed': one.borrowed, 'split': options.split, 'seed': options.seed, 'noise': sampling.NOISE,
                    'levels': one.spec.levels, **one.told("each image's own row"), **one.real.resized}  # fmt: skip
        if processes.agreed(one.has('bits_per_dim', protocol)):
            return
        batch = max(1, options.batch_size // copies)
        scorer = LikelihoodScorer(self.blueprint, self.state, split, options.seed, batch, one.quiet)
        name = Protocol({**protocol, 'step': one.step, 'config_hash': one.config_hash}).hash
        nats = scorer.nats(likelihood, self.kept / 'likelihood' / f'{likelihood.method}-{name}.npz')
        error = scorer.discretisation_error(likelihood, nats['log_prob'], options.refine_images)
        bits = {part: one.spec.bits_per_dim(values) for part, values in nats.items()}
        total = bits.pop('log_prob')
        means = {part: np.sqrt(np.square(values).mean()) if part in likelihood.errors else values.mean()
                 for part, values in bits.items()}  # fmt: skip
        density = {'nats': one.spec.density_nats(float(nats['log_prob'].mean()))} if one.spec.is_plane else {}
        processes.first_does(lambda: one.add(
            'bits_per_dim', float(total.mean()), std_err=float(total.std(ddof=1) / np.sqrt(len(total))),
            kind=likelihood.kind, n=len(total), seed=options.seed, protocol=protocol,
            discretisation_error=None if error is None else -float(one.spec.bits_per_dim(error)),
            details={**{part: float(mean) for part, mean in means.items()}, **density, **more()} or None,
        ))  # fmt: skip


def draw_run(
    path: pathlib.Path,
    *,
    sampler: str,
    count: int,
    seed: int,
    average: str,
    step: int | None,
    data_dir: str,
    quiet: bool,
) -> ImageSet:
    """Return samples of a run as a set of uint8 images; '' and 0 mean the value in the run's own evaluation config."""
    run = runs.open_run(path)
    configured = samplers.listed(run.config.evaluation.samplers)
    options: dict[str, Any] = {'samplers': (sampler,) if sampler else configured[:1]}
    if count:
        options['num_samples'] = count
    if average:
        options['average'] = average
    values = configs.plain(run.config)
    values['evaluation'] |= {**options, 'seed': seed, 'metrics': ('speed',), 'sets': 1}
    if data_dir:
        values['data']['data_dir'] = data_dir
    config = configs.resolve(values)
    run = runs.open_run(path, config=config)
    step, state = run.restore(step)
    family = run.after(step)
    run, (cell,) = lent_guides(run, grid.cells((), family, config.evaluation))
    one = Evaluation(run, config, step, state, [cell], quiet)
    store, total = Weights(one, cell.average).store(cell), config.evaluation.num_samples
    if processes.several():
        store.images(*processes.part(0, total))
        processes.all_agree(True)  # then every process reads the samples of all

    def batches() -> Iterator[np.ndarray]:
        for part in store.batches(0, total):
            yield sampling.to_uint8(part, family.spec)

    drawn = one.sampling_protocol(cell, cell.average)
    said = {'from': 'run', 'config_hash': one.config_hash, 'checkpoint_step': step, **drawn}
    said = {key: value for key, value in said.items() if key not in ('num_samples', 'sets')}
    return ImageSet(said, total, family.spec.shape, batches)
