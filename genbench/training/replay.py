"""Repeat one step of a run from the newest checkpoint before it, and report what its updates see."""

import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.errors import UserError
from genbench.families import stages
from genbench.training import guards, runs
from genbench.training import state as states
from genbench.training.checkpoint import Checkpoints, DamagedError
from genbench.training.loop import Training
from genbench.training.prepared import prepare
from genbench.training.programs import Programs
from genbench.training.step import active_updates, seen, take_batch


def replay(workdir: str | pathlib.Path, step: int) -> Iterator[str]:
    """Lines about the update that a run makes after `step` updates. Nothing is written.

    The steps since the checkpoint are repeated, so that the update meets the same state as in training.

    Raises:
      UserError: the run or the step does not exist.
    """
    run = runs.open_run(workdir)
    config = run.config
    if not 0 <= step < config.train.num_steps:
        raise UserError(f'--replay is {step}; this run has the steps 0 to {config.train.num_steps - 1}.')
    training = Training(prepare(config, runs.borrow(config, run.folder), folder=run.folder), run.folder)
    at, state = _newest(training, step)
    yield f'from {f"checkpoint {at}" if state is not None else "the start"}, {step - at} steps to step {step}'
    for span in stages.spans(training.family):
        stage, end = span.stage, min(span.stop, step + 1)
        if at >= end and state is not None:
            continue
        blueprint, state = training.blueprint(stage.name), training.enter(stage.name, at, state)
        programs = training.programs(stage.name)
        while at < min(step, end):
            inputs = training.feed.inputs(at)
            execute, _ = programs.get(inputs, active_updates(blueprint, at))
            state, _ = execute(state, training.constants, inputs)
            at += 1
        if at < end:
            yield from _step(training, blueprint, programs, state, step)
            return


def _newest(training: Training, step: int) -> tuple[int, Any]:
    checkpoints = Checkpoints(training.folder.checkpoints)
    try:
        for candidate in reversed([found for found in checkpoints.steps() if found <= step]):
            try:
                return candidate, checkpoints.restore(training.abstract(candidate), candidate)
            except DamagedError as error:
                warnings.warn(f'Checkpoint {candidate} is damaged ({error}).'[:200], stacklevel=2)
    finally:
        checkpoints.close()
    return 0, None


def _step(training: Training, blueprint: states.Blueprint, programs: Programs, state: Any, step: int) -> Iterator[str]:
    """Each update of the step in turn: first where it stops being finite, then what the compiled step reports."""
    inputs = training.feed.inputs(step)
    key = rng.numbered(rng.root(training.config.train.seed, 'training'), step)
    batch = take_batch(blueprint, training.feed, training.constants, inputs, key)
    yield f'images {", ".join(map(str, training.feed.taken.whole(step)[:8]))}, …; key {jax.random.key_data(key)}'
    active = active_updates(blueprint, step)
    for update in blueprint.family.updates:
        if update.name not in active:
            continue
        yield from guards.examine(blueprint, update, training.beside(state), *seen(update, batch, key))
        execute, _ = programs.get(inputs, (update.name,))
        after, scalars = execute(jax.tree.map(jnp.copy, state), training.constants, inputs)
        said = [f'{name} {float(value):.6g}' for name, value in scalars.items() if name.startswith(f'{update.name}/')]
        yield f'{update.name}: {", ".join(said)}'
        skipped = int(after['skipped']['in_a_row']) > 0
        yield f'{update.name}: {"not finite, skipped" if skipped else "finite, applied"}'
        state = {**after, 'step': state['step'], 'averages': state['averages'], 'skipped': state['skipped']}
