"""What the checkpoints of a run hold, which are kept and why, and whether each can be read."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from genbench.errors import UserError
from genbench.training import placement, runs
from genbench.training import state as states
from genbench.training.checkpoint import Checkpoints, DamagedError
from genbench.training.loop import retention

GROUPS = {'params': 'parameters', 'aux': 'other variables', 'opt': 'optimizer', 'averages': 'averages'}


def show(workdir: str | pathlib.Path) -> Iterator[str]:
    """Lines about every checkpoint of a run. Each one is read in full and its hash checked.

    Raises:
      UserError: there is no run, or it has no checkpoints.
    """
    run = runs.open_run(workdir)
    kept, checkpoints = retention(run.family), Checkpoints(run.folder.checkpoints)
    try:
        scores = checkpoints.scores(kept.metric)
        if not scores:
            raise UserError(f'{run.folder.path} has no checkpoint yet; train it first.')
        reasons = kept.reasons(scores)
        for step in scores:
            size = _bytes_of(run.folder.checkpoints / str(step))
            why = ', '.join(reasons[step]) or 'until the next save'
            yield f'{step}: {size:,} bytes, kept ({why}); {_verdict(run, checkpoints, step)}'
    finally:
        checkpoints.close()
    yield from _contents(placement.abstract_state(run.blueprint(max(scores))))
    for name, lent in run.manifest['borrowed'].items():
        yield (f'borrowed {name}: checkpoint {lent["step"]} of {lent["run"]}, average {lent["average"]}, '
               f'state_sha256 {lent["state_sha256"]}')  # fmt: skip
    yield from (f'{name}: {value}' for name, value in run.manifest.get('notes', {}).items())
    for folder in sorted((run.folder.path / 'damaged').glob('*')):
        yield f'moved aside as damaged: {folder}'


def _verdict(run: runs.Run, checkpoints: Checkpoints, step: int) -> str:
    try:
        state = checkpoints.restore(placement.abstract_state(run.blueprint(step)), step)
    except (DamagedError, UserError) as error:
        return f'CANNOT BE READ ({" ".join(str(error).split())[:120]})'
    return f'readable, state_sha256 {states.sha256(states.flatten(state))}'


def _bytes_of(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def _contents(state: Any) -> Iterator[str]:
    """One line for each network, optimizer and average that the newest checkpoint should hold."""
    for group, word in GROUPS.items():
        for name, tree in state[group].items():
            leaves = jax.tree.leaves(tree)
            if leaves:
                largest = max(leaves, key=lambda leaf: leaf.size)
                yield (f'{word} {name}: {states.count(tree):,} numbers in {len(leaves)} arrays, the largest '
                       f'{largest.shape} {largest.dtype}')  # fmt: skip
