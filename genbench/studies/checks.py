"""Cheap checks of a recipe: it resolves, its networks have the published size, and one step runs."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

import jax

from genbench import config as configs
from genbench.errors import UserError
from genbench.families import stages
from genbench.families.base import Family
from genbench.studies import ledger
from genbench.studies.verify import resolve
from genbench.training import dry_run, lending, loop, runs
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.prepared import Prepared, prepare
from genbench.training.step import active_updates

SIZES = (2, 8, 24, 64)  # images in the step of a check, the first that the family allows
MANY = 64  # a step of so many images is only traced
ROOM = 3  # states that must fit into the memory of this machine before a step is run


def check(row: ledger.Row) -> Iterator[tuple[bool, str]]:
    """(whether it holds, in words) for each cheap check. The data set need not be prepared.

    Raises:
      UserError: there is no recipe, or it does not resolve.
    """
    config = resolve(row)
    yield True, f'{row.config} resolves, {config.train.num_steps:,} steps of {config.train.batch_size} images'
    ready = smallest(row)
    yield _count(row, ready.family)
    yield _one_step(ready)


def smallest(row: ledger.Row) -> Prepared:
    """The recipe with the fewest images of `SIZES` that its family allows."""
    for images in SIZES[:-1]:
        with contextlib.suppress(UserError):
            return _ready(row, images)
    return _ready(row, SIZES[-1])


def _ready(row: ledger.Row, images: int) -> Prepared:
    """The recipe on one device, with noise for images. The runs that it builds on are known by their shapes."""
    lenders = {name: configs.load(str(path), more) for name, (path, more) in row.lender_recipes.items()}
    small = resolve(row, f'train.batch_size={images}', 'train.accumulate=1')
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    return prepare(small, lending.promised(small, lenders), mesh=mesh, on_noise=True)


def _count(row: ledger.Row, family: Family) -> tuple[bool, str]:
    blueprint = states.Blueprint(family.at(family.stages[0].name))
    number = states.count(blueprint.shapes['params'])
    if row.parameters is None:
        return True, f'{number:,} parameters; no published count to compare with'
    off = abs(number / row.parameters - 1)
    said = f'{number:,} parameters, published {row.parameters / 1e6:g}M, tolerance {row.parameters_tolerance:.1%}'
    return off <= row.parameters_tolerance, said


def _one_step(ready: Prepared) -> tuple[bool, str]:
    """Run one step, or only trace it: of a recipe that builds on other runs, takes many images or much memory."""
    free, size = _free(), _bytes(ready)
    many = ready.config.train.batch_size >= MANY
    if ready.loans or many or size * ROOM > free:
        span = stages.spans(ready.family)[0]
        parts = ', '.join(name for active, _, _ in dry_run.traced_steps(ready, span) for name in active)
        why = (f'it builds on {", ".join(ready.loans)}' if ready.loans
               else 'these are many images' if many
               else f'{free / 2**30:.0f} GiB are too little for a state of {size / 2**30:.0f} GiB')  # fmt: skip
        return True, f'one step of {ready.config.train.batch_size} images traces ({parts}); not run, since {why}'
    training, stage = loop.Training(ready, runs.Folder(pathlib.Path())), ready.family.stages[0].name
    state, active = training.enter(stage, 0, None), active_updates(training.blueprint(stage), 0)
    execute, _ = training.programs(stage).get(training.inputs(0), active)
    state, scalars = execute(state, training.constants, training.inputs(0))
    shown = ', '.join(f'{name} {float(value):.4g}' for name, value in scalars.items() if not name.startswith('skipped'))
    finite = int(state['skipped']['total']) == 0
    said = f'one step of {ready.config.train.batch_size} images: {shown}'
    return finite, said + ('' if finite else ', which is not finite')


def _bytes(ready: Prepared) -> int:
    shapes = states.Blueprint(ready.family.at(ready.family.stages[0].name)).shapes
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _free() -> float:
    """Bytes of memory that this machine has left; infinite if it does not say."""
    try:
        return float(os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    except (AttributeError, ValueError, OSError):
        return float('inf')


Say = Callable[[str], None]


def check_and_say(row: ledger.Row, say: Say) -> bool:
    """Report each check as it is done, and return whether all hold."""
    held = True
    for holds, words in check(row):
        say(f'{"ok  " if holds else "FAIL"} {words}')
        held &= holds
    return held
