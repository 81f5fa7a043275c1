"""The training loop: exactly N updates of any family, checkpoints, logs, and a clean stop on request."""

import dataclasses
import json
import pathlib
import signal
import time
from typing import Any

import jax
import numpy as np

from genbench import config as configs
from genbench import families
from genbench.config import Config
from genbench.data import pipeline, sources
from genbench.errors import UserError, explained_disk_errors
from genbench.families.base import Family
from genbench.training import averages, runs, sampling
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.checkpoint import Checkpoints
from genbench.training.files import write_atomically
from genbench.training.metrics import MetricsLog, Progress
from genbench.training.step import active_updates, make_step

GRID_SIZE = 100  # images in a sample grid


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: `complete`, or interrupted at `step` with everything saved."""

    summary: dict[str, Any]
    already: bool = False  # it was complete before

    @property
    def complete(self) -> bool:
        return self.summary['complete']


@explained_disk_errors()
def train(config: Config, workdir: str | pathlib.Path, *, quiet: bool = False) -> Outcome:
    """Train, or go on from the newest checkpoint, until step `config.train.num_steps`.

    Raises:
      UserError: for everything a user can mend; see the message.
    """
    mesh = meshes.make_mesh()
    meshes.check_batch(config.train.batch_size, mesh)
    folder = runs.check(workdir, config)
    finished = folder.read_summary()
    if finished and finished['complete'] and finished['step'] >= config.train.num_steps:
        runs.claim(folder, config)  # what does not make another run, such as evaluation, may have changed
        return Outcome(finished, already=True)
    loans = runs.resumed_loans(folder) or runs.borrow(config)
    builder = sources.open_builder(config.data.name, config.data.data_dir)
    borrowed = runs.describe({name: loan.description for name, loan in loans.items()})
    family = families.get(config.family.name)(config, sources.spec_of(builder), borrowed)
    _check_names(family)
    runs.claim(folder, config)
    with runs.lock(folder):
        return _Training(config, folder, family, _make_feed(config, builder), mesh, loans, quiet).run()


def _check_names(family: Family) -> None:
    """Find what the config misnames before anything is written."""
    first = states.Blueprint(family.at(family.stages[0].name))
    _ = first.optimizers
    for average in first.averages:
        if average.width:
            averages.exponent(average.width)
    for text in family.config.evaluation.samplers:
        sampling.parse_sampler(text, family)


def _make_feed(config: Config, builder: Any) -> pipeline.Feed:
    size = builder.info.splits['train'].num_examples
    order = pipeline.Order(size, config.train.seed)
    if size * int(np.prod(builder.info.features['image'].shape)) <= config.data.resident_bytes:
        return pipeline.ResidentFeed(sources.load(builder, 'train'), order, config.train.batch_size)
    return pipeline.StreamedFeed(builder.as_data_source('train'), order, config.train.batch_size)


class _Training:
    """One call of `train`."""

    def __init__(self, config, folder: runs.Folder, family: Family, feed, mesh, loans, quiet: bool):
        self.config, self.folder, self.family, self.feed = config, folder, family, feed
        self.mesh, self.loans, self.quiet = mesh, loans, quiet
        self.checkpoints = Checkpoints(folder.checkpoints, keep=config.checkpoint.keep)
        self.constants = jax.device_put(feed.constants, meshes.replicated(mesh))
        self.snapshots = averages.Snapshots(folder.snapshots)
        self._stop = False

    def run(self) -> Outcome:
        restored = self.checkpoints.restore_latest(self._abstract)
        step, state = restored if restored else (0, None)
        log = MetricsLog(self.folder.metrics, self.folder.path / 'events', step)
        self.snapshots.drop_after(step)
        previous = {sig: signal.signal(sig, self._request_stop) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            for stage in self.family.stages:
                end = min(stage.until or self.config.train.num_steps, self.config.train.num_steps)
                if step >= end and state is not None:
                    continue
                if self._stop:
                    break
                state = self._enter(stage.name, step, state)
                step, state = self._run_stage(stage.name, step, end, state, log)
            if state is None:
                raise KeyboardInterrupt  # stopped before there was anything to save
            return self._finish(step, state, log)
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)
            log.close()
            self.checkpoints.close()

    def _snapshot_is_due(self, step: int) -> bool:
        options = self.config.train
        return step % (options.snapshot_every or -(-options.num_steps // 16)) == 0 or step == options.num_steps

    def _request_stop(self, *_: Any) -> None:
        self._stop = True

    def _blueprint(self, stage: str) -> states.Blueprint:
        return states.Blueprint(self.family.at(stage))

    def _abstract(self, step: int) -> Any:
        stage = runs.stage_at(self.family, step - 1)
        return runs.abstract_state(self._blueprint(stage.name))

    def _enter(self, stage: str, step: int, state: Any) -> Any:
        """The state to start or go on with in a stage: restored, fresh, or carried over from the stage before."""
        blueprint = self._blueprint(stage)
        owner = runs.stage_at(self.family, step - 1).name
        if state is not None and (owner == stage or step == 0):
            self._write_manifest(state)
            return state
        key = jax.random.fold_in(states.purpose_key(self.config.train.seed, states.INIT), step)
        batch = self.feed.inputs(step)
        lent = {name: loan.params for name, loan in self.loans.items()}

        def build(constants, inputs, lent, old):
            before = None if old is None else self._blueprint(owner).bind_state(old)
            fresh = blueprint.initial_state(key, self.feed.batch(constants, inputs), lent, before)
            return fresh if old is None else {**fresh, 'step': old['step'], 'skipped': old['skipped']}

        state = jax.jit(build, out_shardings=meshes.replicated(self.mesh))(self.constants, batch, lent, state)
        self._write_manifest(state)
        return state

    def _write_manifest(self, state: Any) -> None:
        values = runs.manifest(self.family, state['params'], self.loans)
        write_atomically(self.folder.manifest, json.dumps(values, indent=2) + '\n')

    def _run_stage(self, stage: str, step: int, end: int, state: Any, log: MetricsLog) -> tuple[int, Any]:
        config, blueprint = self.config, self._blueprint(stage)
        root = states.purpose_key(config.train.seed, states.TRAIN)
        program = make_step(blueprint, self.feed, root, self.mesh)
        compiled: dict[tuple[str, ...], tuple[Any, float]] = {}  # by active updates: the program and its FLOPs
        progress = Progress(f'train {self.family.name}', step, end, quiet=self.quiet)
        pending: list[dict[str, jax.Array]] = []
        began, base = time.monotonic(), log.wall_time
        last_log = (step, began)
        try:
            while step < end and not self._stop:
                active, inputs = active_updates(blueprint, step), self.feed.inputs(step)
                if active not in compiled:
                    executable = program.lower(state, self.constants, inputs, active).compile()
                    compiled[active] = executable, _flops(executable)
                execute, flops = compiled[active]
                state, scalars = execute(state, self.constants, inputs)
                step += 1
                log.flops += flops
                pending.append(scalars)
                if len(pending) > 1:
                    jax.block_until_ready(pending[-2])  # stay one step ahead of the device, not more
                if step % config.train.log_every == 0 or step == end or self._stop:
                    now = time.monotonic()
                    rate = (step - last_log[0]) * config.train.batch_size / (now - last_log[1])
                    log.wall_time, last_log = base + now - began, (step, now)
                    row = self._log(step, pending, rate, log)
                    pending = []
                    progress.update(step, _note(row, rate))
                if step % config.checkpoint.every == 0 and step < end:
                    self.checkpoints.save(step, state)
                if self._snapshot_is_due(step) and any(average.width for average in blueprint.averages):
                    self.snapshots.save(step, blueprint.averages, state['averages'])
                if config.train.sample_every and step % config.train.sample_every == 0 and step < end:
                    self._save_samples(blueprint, state, step)
        finally:
            progress.close()
        log.wall_time = base + time.monotonic() - began
        if step not in self.checkpoints.steps():
            self.checkpoints.save(step, state)
        return step, state

    def _log(self, step: int, pending: list[dict[str, jax.Array]], rate: float, log: MetricsLog) -> dict[str, Any]:
        """Write the mean of the scalars since the last row; stop where nothing but non-finite updates came."""
        rows = jax.device_get(pending)
        names = dict.fromkeys(name for row in rows for name in row)
        averaged = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
        means: dict[str, Any] = {name: value if np.isfinite(value) else None for name, value in averaged.items()}
        means |= {name: int(rows[-1][name]) for name in ('skipped/total', 'skipped/in_a_row')}
        row = {
            'step': step,
            'wall_time': round(log.wall_time, 3),
            'images_seen': step * self.config.train.batch_size,
            **means,
            'speed/images_per_second': round(rate, 1),
            'train/flops': log.flops,
        }
        log.write(row)
        if means['skipped/in_a_row'] >= self.config.train.skip_limit:
            raise UserError(
                f'The last {means["skipped/in_a_row"]} updates were not finite and were skipped; stopped at step '
                f'{step} (train.skip_limit). Lower optimizer.learning_rate, or start from {self.folder.checkpoints}.'
            )
        return row

    def _save_samples(self, blueprint: states.Blueprint, state: Any, step: int) -> None:
        family = blueprint.family
        averaged = {**state['params'], **state['averages'].get('ema', {})}
        drawer = sampling.Drawer(blueprint, GRID_SIZE)
        sampler = sampling.default_sampler(family)
        labels = np.arange(GRID_SIZE) % family.classes if family.conditional else None
        images, _ = drawer.draw({**state, 'params': averaged}, sampler, GRID_SIZE, self.config.train.seed, labels)
        sampling.save_grid(self.folder.samples / f'step_{step:07d}.png', images, family.spec)

    def _finish(self, step: int, state: Any, log: MetricsLog) -> Outcome:
        complete = step >= self.config.train.num_steps
        self.checkpoints.wait()
        if complete:
            self._save_samples(self._blueprint(runs.stage_at(self.family, step - 1).name), state, step)
        images = step * self.config.train.batch_size
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
            'training_flops': log.flops or None,
            'skipped_updates': int(state['skipped']['total']),
            'state_sha256': states.sha256(jax.device_get(states.flatten(state))),
            'devices': len(self.mesh.devices.flat),
        }
        write_atomically(self.folder.summary, json.dumps(summary, indent=2) + '\n')
        return Outcome(summary)


def _flops(compiled: Any) -> float:
    """Floating-point operations of one step as XLA counts them, over all devices; 0 where it does not say."""
    analysis = compiled.cost_analysis()
    flops = (analysis[0] if isinstance(analysis, list) else analysis or {}).get('flops', 0.0)
    return max(flops, 0.0) * jax.device_count()


def _note(row: dict[str, Any], rate: float) -> str:
    losses = [f'{name.split("/")[0]} {value or np.nan:.4g}' for name, value in row.items() if name.endswith('/loss')]
    return ', '.join([*losses, f'{rate:.0f} images/s'])
