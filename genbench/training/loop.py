"""The training loop: exactly N updates of any family, checkpoints, logs, and a clean stop on request."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genbench import config as configs
from genbench import flops, rng
from genbench.config import Config
from genbench.data import pipeline, sources
from genbench.errors import UserError, explained_disk_errors
from genbench.families import stages
from genbench.families.base import Family
from genbench.reading import read_rows
from genbench.training import beginnings, guards, observing, placement, processes, runs, samplers, telemetry, trackers
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.averages import Snapshots
from genbench.training.checkpoint import Checkpoints, Retention
from genbench.training.files import append_line, write_atomically
from genbench.training.metrics import ROW, MetricsLog, Progress, means
from genbench.training.prepared import Prepared, mesh_of, prepare
from genbench.training.programs import Programs, steps_in
from genbench.training.step import active_updates, make_step

STEPS_PER_CALL = 8  # the default on accelerators


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `complete`, or interrupted at `step` with everything saved."""

    summary: dict[str, Any]
    already: bool = False  # complete before this call

    @property
    def complete(self) -> bool:
        return self.summary['complete']


@explained_disk_errors()
def train(
    config: Config,
    workdir: str | pathlib.Path,
    *,
    quiet: bool = False,
    debug: bool = False,
    profile: tuple[int, int] | None = None,
    began: float | None = None,
    monitor: observing.Maker | None = None,
) -> Outcome:
    """Train until step `config.train.num_steps`, continuing from the newest checkpoint if there is one.

    Args:
      debug: check shapes first, trace a NaN to the operation that produced it, and stop there.
      profile: write a trace of the steps [start, stop).
      began: `time.monotonic()` when the process started, to count its imports as initialisation.
      monitor: creates the object that scores the model every `train.evaluate_every` steps.

    Raises:
      UserError: any mistake that the user can correct; see the message.
    """
    ledger_began = time.monotonic() if began is None else began
    mesh = mesh_of(config)
    folder = runs.check(workdir, config)
    finished = folder.read_summary()
    if finished and finished['complete'] and finished['step'] >= config.train.num_steps:
        processes.first_does(lambda: runs.claim(folder, config))  # keys that do not define the run may have changed
        return Outcome(finished, already=True)
    ready = prepare(config, runs.borrow(config, folder), mesh=mesh, folder=folder)
    runs.check_data(folder, ready.family.spec)
    _check(ready)
    trackers.check(config)
    watched = observing.open_monitor(ready, monitor)
    with contextlib.ExitStack() as held:

        def take() -> None:
            runs.claim(folder, config)
            held.enter_context(runs.lock(folder))

        processes.first_does(take)
        quiet = quiet or not processes.is_first()
        prepared_flops = ready.make_data(quiet)
        training = Training(ready, folder, prepared_flops, watched)
        with jax.debug_nans(True) if debug else contextlib.nullcontext():
            return training.run(quiet, debug, profile, ledger_began)


def _check(ready: Prepared) -> None:
    """Find unknown names in the config, impossible stages and unsuitable rows before anything is written.

    Rows that fit into memory are all read, and of others the first batch.
    """
    beginnings.trace(ready)
    pipeline.first_rows(ready.outline, ready.config.train.batch_size, None)
    family = stages.after(ready.family, ready.config.train.num_steps)
    for text in samplers.listed(family.config.evaluation.samplers):
        samplers.parse(text, family)
    if ready.builder is not None:
        sources.count(ready.builder, ready.config.evaluation.split)


class Training:
    """What one call of `train` or `replay` works with. Nothing is written before `run`."""

    def __init__(self, ready: Prepared, folder: runs.Folder, prepared_flops: float | None = 0.0, monitor: Any = None):
        self.config, self.folder, self.family, self.feed = ready.config, folder, ready.family, ready.feed
        self.mesh, self.loans = ready.mesh, ready.loans
        self.constants, self.places = ready.constants, ready.places
        self.debug = False
        self.entered_flops: float | None = 0.0
        self.prepared_flops = prepared_flops  # FLOPs of the data that the family prepared
        self._fetched: dict[int, Any] = {}
        self.observer = observing.Observer(ready.config, folder, ready.feed, monitor)

    def run(self, quiet: bool, debug: bool, profile: tuple[int, int] | None, began: float) -> Outcome:
        self.quiet, self.debug, self.profiled = quiet, debug, profile is not None
        self.checkpoints = Checkpoints(self.folder.checkpoints, retention(self.family))
        self.snapshots = Snapshots(self.folder.snapshots)
        self.stop = processes.StopRequest()
        restored = self.checkpoints.restore_latest(self.abstract)
        step, state = restored if restored else (0, None)
        self._note_start(step)
        self.observer.note_protocol(step)
        log = MetricsLog(self.folder.metrics, self.folder.path / 'events', step, not processes.is_first(), self.config)
        if telemetry.definition(telemetry.read_starts(self.folder.starts)) is None:
            log.flops = None  # earlier starts counted differently
        if restored is None:
            log.spend(self.prepared_flops)
        self.ledger = telemetry.Ledger(log.seconds, began)
        self.trace = telemetry.Trace(self.folder.path / 'profile', profile)
        self.snapshots.drop_after(step)
        self.ledger.add('init', self.ledger.since_began())
        try:
            with self.stop:
                for span in stages.spans(self.family):
                    stage, end = span.stage, span.stop
                    if step >= end and state is not None:
                        continue
                    if self.stop.reached(step):
                        break
                    with self.ledger.spent('init'):
                        programs = self.programs(stage.name)
                        blueprint = self.blueprint(stage.name)
                        programs.begin(self.next_inputs(blueprint, step, end), active_updates(blueprint, step))
                        state = self.enter(stage.name, step, state)
                        log.spend(self.entered_flops)
                        self.entered_flops = 0.0
                        self._write(self.folder.manifest, runs.manifest(self.family, state['params'], self.loans))
                    step, state = self._run_stage(span, step, state, log, programs)
                if state is None:
                    raise KeyboardInterrupt  # stopped before there was anything to save
                return self._finish(step, state, log)
        finally:
            self.trace.stop()
            self.feed.close()
            log.close(log.last.get('step', 0) >= self.config.train.num_steps)
            self.checkpoints.close()

    def _note_start(self, step: int) -> None:
        """Record in starts.jsonl from which step this start continues and which earlier work it repeats."""
        lost = telemetry.lost_work(read_rows(self.folder.metrics, ROW), step)
        row = {'time': round(time.time(), 3), 'step': step, **lost, 'flops': flops.DEFINITION}
        processes.first_does(lambda: append_line(self.folder.starts, json.dumps(row)))

    def _snapshot_is_due(self, step: int, end: int) -> bool:
        options = self.config.train
        return step % (options.snapshot_every or -(-options.num_steps // 16)) == 0 or step == end

    def blueprint(self, stage: str) -> states.Blueprint:
        return states.blueprint(self.family, stage)

    def inputs(self, step: int) -> Any:
        """What the feed gives for a step. It is fetched once, even if it is asked for twice."""
        if step not in self._fetched:
            self._fetched[step] = self.feed.inputs(step)
        return self._fetched[step]

    def next_inputs(self, blueprint: states.Blueprint, step: int, end: int) -> Any:
        """Inputs of the next call: those of one step, or a list for several steps.

        Several steps share a call if they run the same updates and nothing else happens between them.
        """
        options = self.config.train
        most = options.steps_per_call or (1 if jax.default_backend() == 'cpu' else STEPS_PER_CALL)
        periods = [options.log_every, self.config.checkpoint.every, options.sample_every or end,
                   options.evaluate_every or end]  # fmt: skip
        if any(average.width for average in blueprint.averages):
            periods.append(options.snapshot_every or -(-options.num_steps // 16))
        room = min(end - step, *(period - step % period for period in periods))
        alike = len({active_updates(blueprint, step + later) for later in range(most)}) == 1
        if most == 1 or room < most or not alike or self.debug or self.profiled:
            return self.inputs(step)
        return [self.inputs(step + later) for later in range(most)]

    def abstract(self, step: int) -> Any:
        """Shapes, types and placements of the state after `step` updates."""
        return placement.abstract_state(self.blueprint(self._stage_before(step)), self.mesh)

    def _stage_before(self, step: int) -> str:
        """The name of the stage that produced the state after `step` updates."""
        return stages.span_at(self.family, step - 1).stage.name

    def enter(self, stage: str, step: int, state: Any) -> Any:
        """The state with which a stage starts or resumes: restored, fresh, or carried over from the stage before."""
        blueprint = self.blueprint(stage)
        owner = self._stage_before(step)
        if state is not None and (owner == stage or step == 0):
            return state
        key = rng.numbered(rng.root(self.config.train.seed, 'initialisation'), step)
        key = meshes.put(key, meshes.replicated(self.mesh))  # it is an argument, so one program serves all seeds
        several, shape = self.config.train.initial_images if state is None else 0, blueprint.family.spec.shape
        first = pipeline.first_rows(self.feed, several, shape) if several else None
        batch = self.inputs(step) if first is None else meshes.put(first, meshes.replicated(self.mesh))

        def build(key, constants, inputs, old):
            before = None if old is None else self.blueprint(owner).bind_state({**old, 'lent': constants.lent})
            rows = inputs if several else self.feed.batch(constants.feed, inputs, shape)
            fresh = blueprint.initial_state(key, rows, constants.lent, before)
            return fresh if old is None else {**fresh, 'step': old['step'], 'skipped': old['skipped']}

        places = placement.shardings(placement.abstract_state(blueprint, self.mesh))
        # This runs only once. On a CPU, this level shortens the compilation.
        options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
        program = jax.jit(build, out_shardings=places, compiler_options=options)
        traced = program.trace(key, self.constants, batch, state)
        self.entered_flops = telemetry.flops_of(traced)
        return traced.lower().compile()(key, self.constants, batch, state)

    def beside(self, state: Any) -> Any:
        """The state, together with what borrowed runs lend."""
        return {**state, 'lent': self.constants.lent}

    def programs(self, stage: str) -> Programs:
        """The compiled steps of a stage."""
        blueprint = self.blueprint(stage)
        state = placement.abstract_state(blueprint, self.mesh)
        root = rng.root(self.config.train.seed, 'training')
        step = make_step(blueprint, self.feed, root, placement.shardings(state), placement.shardings(self.places.lent))
        return Programs(step, state, self.constants, self.debug)

    def _write(self, path: pathlib.Path, values: dict[str, Any]) -> None:
        processes.first_does(lambda: write_atomically(path, json.dumps(values, indent=2) + '\n'))

    def _run_stage(
        self, span: stages.Span, step: int, state: Any, log: MetricsLog, programs: Programs
    ) -> tuple[int, Any]:
        config, blueprint, ledger, end = self.config, self.blueprint(span.stage.name), self.ledger, span.stop
        progress = Progress(f'train {self.family.name}', step, end, quiet=self.quiet)
        short = (config.train.num_steps + 1) // 2  # a run that ends with this many skips has learned nothing
        watch = guards.Watch(1 if self.debug else min(config.train.skip_limit, short))
        meter = telemetry.Meter(ledger, span.batch_size, self._peak())
        meter.start(step, log.flops)
        pending: list[dict[str, jax.Array]] = []
        began, base = time.monotonic(), log.wall_time
        if self.debug:
            shapes = pipeline.shapes(self.feed, span.batch_size, blueprint.family.spec.shape)
            guards.check_shapes(blueprint, self.beside(state), shapes)
        stop = self.stop.reached(step)
        try:
            while step < end and not stop:
                self.trace.at(step, state)
                active = active_updates(blueprint, step)
                with ledger.spent('data_wait'):
                    inputs = self.next_inputs(blueprint, step, end)
                    count = steps_in(inputs)
                with ledger.spent('compile'):
                    execute, operations = programs.get(inputs, active)
                with ledger.spent('step'):
                    state, scalars = execute(state, self.constants, inputs)
                    done = scalars if count > 1 else [scalars]
                    for later, values in enumerate(done):
                        watch.add(step + later, values)
                    if ledger.first_step is None:
                        jax.block_until_ready(state)
                        ledger.first_step = round(ledger.since_began(), 3)
                    tripped = watch.tripped(behind=count)  # stay exactly one call ahead of the device
                self._fetched.clear()
                stop = any([self.stop.reached(step + 1 + later) for later in range(count)])  # ask at every step
                step += count
                log.spend(operations)
                pending.extend(done)
                saving = step % config.checkpoint.every == 0 and step < end
                scored = self.observer.scores_at(step)
                due = step % config.train.log_every == 0 or step == end or stop or tripped or scored or self.debug
                if due or saving:  # each checkpoint has a row; a resumed run continues its counts
                    with ledger.spent('step'):
                        jax.block_until_ready(pending)
                    log.wall_time = base + time.monotonic() - began
                    scalars = means(pending)
                    if scored:
                        before = ledger['evaluation']
                        with ledger.spent('evaluation'):
                            scalars |= self.observer.scores(blueprint, self.beside(state))
                        began += ledger['evaluation'] - before  # evaluation is not training time
                    row = self._log(step, scalars, meter, log)
                    pending = []
                    progress.update(step, _note(row))
                    guards.check_stops(blueprint.family, row)
                    if due and watch.tripped(behind=0):
                        numbers = self.feed.taken.whole
                        raise guards.record(self.folder.nonfinite, watch.streak(), config.train.seed, numbers)
                if any(average.width for average in blueprint.averages) and self._snapshot_is_due(step, end):
                    with ledger.spent('checkpoint'):
                        self.snapshots.save(step, blueprint.averages, state['averages'])
                if saving:
                    self._save(step, state, log)
                if config.train.sample_every and step % config.train.sample_every == 0 and step < end:
                    self._save_samples(blueprint, state, step, log)
        finally:
            progress.close()
        log.wall_time = base + time.monotonic() - began
        if step not in self.checkpoints.steps():
            self._save(step, state, log)
        return step, state

    def _save(self, step: int, state: Any, log: MetricsLog) -> None:
        metric = self.checkpoints.metric
        with self.ledger.spent('checkpoint'):
            self.checkpoints.save(step, state, log.last.get(metric))
        score = self.observer.monitor is not None and metric.startswith(observing.PREFIX)  # a stopped run has no score
        elsewhere = score or self._of_another_stage(metric, log.last)
        if metric and log.last and metric not in log.last and not elsewhere:
            known = ', '.join(name for name in log.last if '/' in name)
            raise UserError(f'checkpoint.best_metric is {metric!r}; this run logs {known}.')

    def _of_another_stage(self, metric: str, row: Mapping[str, Any]) -> bool:
        """Whether this row lacks a scalar because its update runs only in other stages."""
        updates = {update.name for stage in self.family.stages for update in self.family.at(stage.name).updates}
        return metric.partition('/')[0] in updates - {name.partition('/')[0] for name in row}

    def _peak(self) -> float | None:
        return telemetry.peak_flops(jax.devices()[0].device_kind, self.config.network.get('dtype', 'float32'))

    def _log(self, step: int, scalars: dict[str, Any], meter: telemetry.Meter, log: MetricsLog) -> dict[str, Any]:
        row = {
            'step': step,
            'wall_time': round(log.wall_time, 3),
            'images_seen': stages.images(self.family, step),
            **scalars,
            **meter.read(step, log.flops),
            **{f'seconds/{part}': round(value, 4) for part, value in self.ledger.seconds().items()},
            'train/flops': log.flops,
        }
        log.write(row)
        return row

    def _save_samples(self, blueprint: states.Blueprint, state: Any, step: int, log: MetricsLog) -> None:
        with self.ledger.spent('evaluation'):
            log.picture(step, self.observer.draw(blueprint, self.beside(state), step))

    def _finish(self, step: int, state: Any, log: MetricsLog) -> Outcome:
        complete = step >= self.config.train.num_steps
        with self.ledger.spent('checkpoint'):
            self.checkpoints.wait()
        if complete:
            self._save_samples(self.blueprint(self._stage_before(step)), state, step, log)
        images = stages.images(self.family, step)
        summary = {
            'family': self.family.name,
            'dataset': self.family.spec.name,
            'config_hash': configs.config_hash(self.config),
            'complete': complete,
            'step': step,
            'images_seen': images,
            'training_seconds': round(log.wall_time, 3),
            'images_per_second': round(images / max(log.wall_time, 1e-9), 1),
            'parameters': {name: states.count(tree) for name, tree in state['params'].items()},
            'training_flops': log.flops,
            'training_flops_counted': None if log.flops is None else flops.DEFINITION,
            'skipped_updates': int(state['skipped']['total']),
            'state_sha256': states.sha256(states.flatten(state)),
            'devices': len(self.mesh.devices.flat),
            **telemetry.summary(self.ledger, step, log.flops, self._peak(), telemetry.read_starts(self.folder.starts)),
        }
        self._write(self.folder.summary, summary)
        return Outcome(summary)


def retention(family: Family) -> Retention:
    """Which checkpoints a run keeps. By default the loss of the first update ranks them."""
    options = family.config.checkpoint
    metric = options.best_metric or f'{family.at(family.stages[-1].name).updates[0].name}/loss'
    begins = tuple(span.first for span in stages.spans(family))
    return Retention(options.keep, options.keep_every, options.keep_best, metric, options.best_mode, begins)


def _note(row: dict[str, Any]) -> str:
    losses = [
        f'{name.split("/")[0]} loss {value or np.nan:.4g}' for name, value in row.items() if name.endswith('/loss')
    ]
    return ', '.join([*losses, f'{row["speed/images_per_second"]:.0f} images/s'])
