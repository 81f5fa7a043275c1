"""Sample grids and scores of the model during training. Neither changes the training state."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from genbench.config import Config
from genbench.data import pipeline
from genbench.errors import UserError
from genbench.reading import read_json_if_any
from genbench.training import processes, runs, samplers, sampling
from genbench.training.files import write_atomically
from genbench.training.prepared import Prepared
from genbench.training.state import Blueprint, State

GRID_SIZE = 100  # images in a sample grid
PREFIX = 'evaluation/'  # prefix of scores in metrics.jsonl
_PROTOCOLS = [{'step': int, 'protocol': dict}]


class Monitor(Protocol):
    """Scores a model while it trains. `genbench.evaluation.monitor` creates it; this layer does not import that.

    Attributes:
      names: the scores that `scores` may return.
      protocol: everything that the scores depend on apart from the model.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def protocol(self) -> Mapping[str, Any]: ...

    def scores(self, blueprint: Blueprint, state: State) -> dict[str, float | None]: ...


Maker = Callable[[Prepared], Monitor]


class Observer:
    """Samples from and scores the averaged parameters of a run whenever its config asks for it."""

    def __init__(self, config: Config, folder: runs.Folder, feed: pipeline.Feed, monitor: Monitor | None):
        self._config, self._folder, self._feed, self.monitor = config, folder, feed, monitor
        self._drawers: dict[Blueprint, sampling.Drawer] = {}  # compiled for one grid and reused for all

    def scores_at(self, step: int) -> bool:
        """Whether to score the model after this step: every `train.evaluate_every` steps and at the end."""
        options = self._config.train
        return self.monitor is not None and (step % options.evaluate_every == 0 or step == options.num_steps)

    def scores(self, blueprint: Blueprint, state: State) -> dict[str, float | None]:
        """The monitor's scores, as scalars of metrics.jsonl."""
        assert self.monitor is not None
        return {PREFIX + name: value for name, value in self.monitor.scores(blueprint, _averaged(state)).items()}

    def draw(self, blueprint: Blueprint, state: State, step: int) -> pathlib.Path:
        """Write a grid of samples and return its path."""
        family, seed = blueprint.family, self._config.train.seed
        if blueprint not in self._drawers:
            self._drawers[blueprint] = sampling.Drawer(blueprint, GRID_SIZE)
        rows = functools.partial(self._feed.rows, shape=family.spec.shape)
        given = sampling.shown(family, GRID_SIZE, rows, seed)
        images = self._drawers[blueprint].draw(_averaged(state), samplers.default(family), GRID_SIZE, seed, given)
        path = self._folder.samples / f'step_{step:07d}.png'
        processes.first_does(lambda: sampling.save_grid(path, images, family.spec))
        return path

    def note_protocol(self, restored_step: int) -> None:
        """Record the step from which the scores follow this protocol. It may differ on another machine."""
        monitor = self.monitor
        if monitor is None:
            return

        def note() -> None:
            noted = [entry for entry in read_protocols(self._folder) if entry['step'] < restored_step]
            now = json.loads(json.dumps(monitor.protocol))
            if not noted or noted[-1]['protocol'] != now:
                noted.append({'step': restored_step, 'protocol': now})
            write_atomically(self._folder.path / runs.MONITOR, json.dumps(noted, indent=2) + '\n')

        processes.first_does(note)


def read_protocols(folder: runs.Folder) -> list[dict[str, Any]]:
    """The protocols of a run's scores, each with the step from which it applies."""
    return read_json_if_any(folder.path / runs.MONITOR, _PROTOCOLS, 'Delete it; training will write it again.') or []


def _averaged(state: State) -> State:
    return {**state, 'params': {**state['params'], **state['averages'].get('ema', {})}}


def open_monitor(ready: Prepared, make: Maker | None) -> Monitor | None:
    """The monitor that the config asks for, if any.

    Raises:
      UserError: checkpoints are to be ranked by a score that not all of them will have.
    """
    options, config = ready.config.train, ready.config.checkpoint
    if not options.evaluate_every:
        return None
    if make is None:
        raise TypeError('train.evaluate_every needs a monitor; call genbench.evaluation.monitor.train')
    monitor, ranked = make(ready), config.best_metric
    if config.keep_best and ranked.startswith(PREFIX):
        if ranked.removeprefix(PREFIX) not in monitor.names:
            known = ', '.join(PREFIX + name for name in monitor.names)
            raise UserError(f'checkpoint.best_metric is {ranked!r}; during training, this run has the scores {known}.')
        if config.every % options.evaluate_every:
            raise UserError(f'checkpoint.best_metric is {ranked!r}, so each checkpoint needs a score: checkpoint.every '
                            f'({config.every}) should be a multiple of train.evaluate_every '
                            f'({options.evaluate_every}).')  # fmt: skip
    return monitor
