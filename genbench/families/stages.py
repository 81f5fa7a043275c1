"""Stages: parts of a run, each with its own networks, image shape, batch size and optimizer, described as data.

Step counts, keys and positions in the data carry over from one stage to the next. Optimizers start afresh. The average
of a network carries over if the shapes of its variables stay the same, and starts afresh otherwise. Averages count
steps, whatever the batch size.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from flax import nnx

from genbench.errors import UserError

if TYPE_CHECKING:
    from genbench.families.base import Family


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
      until: the step of the run at which the stage ends.
      images: the number of images that the stage trains on, rounded up to whole batches, as an alternative to `until`.
        The last stage has neither: it ends with the run.
      shape: height and width of the stage's images, which are area means of the data's images; None: the data's.
      batch_size: None: `train.batch_size`.
      optimizer: keys of `config.optimizer` to replace. Schedules run over the steps of the stage.
    """

    name: str
    until: int | None = None
    images: int | None = None
    shape: tuple[int, int] | None = None
    batch_size: int | None = None
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Span(NamedTuple):
    """A stage's place in a run: from step `first`, after `seen` images, to step `end` or the end of the run."""

    whole: 'Family'  # the family outside any stage
    stage: Stage
    first: int
    end: int | None
    seen: int
    batch_size: int

    @property
    def plain(self) -> bool:
        """Whether this is the run's only stage and changes nothing in the config."""
        return len(self.whole.stages) == 1 and self.stage == Stage(self.stage.name)

    @property
    def stop(self) -> int:
        """The step at which the stage ends in a run of `train.num_steps`."""
        steps = int(self.whole.config.train.num_steps)
        return steps if self.end is None else min(self.end, steps)


def spans(family: 'Family') -> tuple[Span, ...]:
    """The stages of a family's run, in order.

    Raises:
      UserError: two stages have the same name; a stage does not end, or ends before it begins; or the run continues
        after the last stage.
    """
    whole = family if family.span is None else family.span.whole
    found: list[Span] = []
    first = seen = 0
    for stage in whole.stages:
        if found and found[-1].end is None:
            raise UserError(f'Stage {found[-1].stage.name!r} has no end, but {stage.name!r} comes after it; set '
                            'until or images.')  # fmt: skip
        if stage.name in (span.stage.name for span in found):
            raise UserError(f'Two stages have the name {stage.name!r}; rename one of them.')
        size = whole.config.train.batch_size if stage.batch_size is None else stage.batch_size
        if size < 1:
            raise UserError(f'Stage {stage.name!r} has batches of {size} images; it needs at least one.')
        found.append(Span(whole, stage, first, _end(stage, first, size), seen, size))
        seen += ((found[-1].end or first) - first) * size
        first = found[-1].end or first
    if not found:
        raise UserError(f'{whole.name} has no stage; a run needs at least one.')
    if found[-1].stop < whole.config.train.num_steps:
        raise UserError(f'The last stage, {found[-1].stage.name!r}, ends at step {found[-1].stop}, but the run at step '
                        f'{whole.config.train.num_steps} (train.num_steps); remove its end.')  # fmt: skip
    return tuple(found)


def _end(stage: Stage, first: int, size: int) -> int | None:
    if stage.until is not None and stage.images is not None:
        raise UserError(f'Stage {stage.name!r} has both until and images; use only one.')
    end = stage.until if stage.images is None else first + -(-stage.images // size)
    if end is not None and end <= first:
        length = f'{stage.images} images long' if stage.images is not None else f'until step {end}'
        raise UserError(f'Stage {stage.name!r} is {length} and begins at step {first}; list stages in the order of '
                        'their steps, with at least one step each.')  # fmt: skip
    return end


def span_at(family: 'Family', step: int) -> Span:
    """The span of the stage that does the next update after `step` updates."""
    return next(span for span in reversed(spans(family)) if span.first <= max(step, 0))


def after(family: 'Family', step: int) -> 'Family':
    """The family in its state after `step` updates."""
    return family.at(span_at(family, step - 1).stage.name)


def images(family: 'Family', step: int) -> int:
    """The number of training images that the first `step` updates see."""
    span = span_at(family, step - 1)
    return span.seen + (step - span.first) * span.batch_size


def at(family: 'Family', name: str) -> 'Family':
    """The family in a stage, with the stage's image shape in the spec and its batch size and optimizer in the config.

    Raises:
      UserError: the stage's image shape does not divide the shape of the data.
    """
    span = next(span for span in spans(family) if span.stage.name == name)
    whole, stage = span.whole, span.stage
    if span.plain:
        return whole
    spec, config = whole.spec, whole.config.copy_and_resolve_references()
    if stage.shape is not None:
        spec = spec.of_size(stage.shape)
    with config.unlocked():
        config.train.batch_size = span.batch_size
        config.optimizer.update(stage.optimizer)
    staged = type(whole)(config, spec, whole.borrowed)
    staged.span = span
    return staged


def carry(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Copy the old values, in place, into every network that keeps its name and the shapes of all its variables."""
    for name, module in new.items():
        if name in old and shapes(old[name]) == shapes(module):
            nnx.update(module, nnx.state(old[name]))


def shapes(module: nnx.Module) -> dict[str, Any]:
    """The shapes and types of a network's variables, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(module)))
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}
