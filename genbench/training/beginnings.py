"""Checks of every stage before the first one begins, so that no mistake stops a run that has been going for days."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax

from genbench import config as configs
from genbench.data import pipeline
from genbench.errors import UserError
from genbench.families.base import Family
from genbench.families.stages import Span, spans
from genbench.training import averages, guards, step
from genbench.training import mesh as meshes
from genbench.training import state as states
from genbench.training.state import Blueprint

if TYPE_CHECKING:
    from genbench.training.prepared import Prepared


def check(family: Family, mesh: jax.sharding.Mesh) -> None:
    """Check whatever can be checked about the stages without tracing them.

    Raises:
      UserError: the order of the stages, a shape, a batch size or an option of the optimizer is wrong.
    """
    for span in spans(family):
        if span.plain:
            continue
        with _of(span):
            values = configs.plain(family.config)
            values['train']['batch_size'] = span.batch_size
            values['optimizer'] |= span.stage.optimizer
            meshes.check_batch(span.batch_size // configs.resolve(values).train.accumulate, mesh)
            family.at(span.stage.name)


def trace(ready: 'Prepared') -> None:
    """Build the networks of every stage without arrays. Stages of a multi-stage run are traced in full.

    Raises:
      UserError: the config uses an unknown name, or the networks of a stage cannot take its images.
    """
    before: Any = None
    parts = spans(ready.family)
    for span in parts:
        with _of(span):
            blueprint = states.blueprint(ready.family, span.stage.name)
            _ = blueprint.optimizers
            for average in blueprint.averages:
                if average.width:
                    averages.exponent(average.width)
            if not span.plain:
                before = _trace(blueprint, ready.outline, span, before)


def _trace(blueprint: Blueprint, feed: pipeline.Feed, span: Span, before: Any) -> Any:
    """Check that the stage can continue from the state of `before` and that its losses and samples trace."""
    batch, lent = pipeline.shapes(feed, span.batch_size, blueprint.family.spec.shape), blueprint.lent_shapes

    def begin(key: jax.Array, batch: Any, lent: Any, old: Any) -> Any:
        previous = None if old is None else before.bind_state({**old, 'lent': lent})
        return blueprint.initial_state(key, batch, lent, previous)

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(begin, key, batch, lent, None if before is None else before.shapes)
    guards.check_shapes(blueprint, {**state, 'lent': lent}, batch)
    if blueprint.family.config.train.accumulate > 1:
        step.check_splits(blueprint, feed)
    return blueprint


@contextlib.contextmanager
def _of(span: Span) -> Iterator[None]:
    """Name the stage in errors when there are several. An error about a stage's shape is the user's mistake."""
    stage = span.stage
    try:
        yield
    except UserError as error:
        if len(span.whole.stages) == 1:
            raise
        raise UserError(f'Stage {stage.name!r}: {error}') from None
    except (TypeError, ValueError) as error:
        if stage.shape is None:
            raise
        told = (str(error) or type(error).__name__).splitlines()[0]
        size = '×'.join(map(str, stage.shape))
        raise UserError(f'Stage {stage.name!r}: its networks cannot take images of {size} ({told}).') from error
