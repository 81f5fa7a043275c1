"""Log-likelihood of a whole split. Progress is kept on disk, so that an interruption loses only seconds."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genbench.data import pipeline
from genbench.data.sources import Arrays
from genbench.families.base import Likelihood
from genbench.training import sampling
from genbench.training.files import read_npz, write_npz
from genbench.training.metrics import Progress
from genbench.training.state import Blueprint, State

SAVE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class LikelihoodScorer:
    """Scores images of one split with one checkpoint; image i has its own key, so batches do not matter."""

    blueprint: Blueprint
    state: State
    split: Arrays
    seed: int
    batch_size: int
    quiet: bool = False

    def nats(self, likelihood: Likelihood, path: pathlib.Path | None = None) -> dict[str, np.ndarray]:
        """Return {'log_prob': (n,), part: (n,), …} in nats per image. `path` stores progress, to resume from."""
        title = f'score {likelihood.method}'
        return self._score(likelihood.log_prob, likelihood.traceable, title, len(self.split), path)

    def discretisation_error(self, likelihood: Likelihood, coarse: np.ndarray, count: int) -> float | None:
        """Return the mean absolute difference, in nats, from the refined computation over the first `count` images."""
        if likelihood.refined is None or not count:
            return None
        count = min(count, len(self.split))
        title = f'refine {likelihood.method}'
        fine = self._score(likelihood.refined, likelihood.traceable, title, count, None)['log_prob']
        return float(np.abs(fine - coarse[:count]).mean())

    def _score(
        self, log_prob: Any, traceable: bool, title: str, count: int, path: pathlib.Path | None
    ) -> dict[str, np.ndarray]:
        run = program(self.blueprint, log_prob, traceable)
        found = (read_npz(path) if path else None) or {}  # what an earlier run has scored
        done = len(found.get('log_prob', ()))
        left = self.split.part(slice(done, count))
        batches = -(-len(left) // self.batch_size)
        size = sampling.whole_batches(-(-len(left) // batches)) if batches else 1  # equal batches waste no padding
        progress, saved = Progress(title, done, count, 'image', quiet=self.quiet), time.monotonic()
        family = self.blueprint.family
        for rows, mask, indices in pipeline.padded_batches(left, size):
            first = done + int(indices[0])
            keys = sampling.image_keys(family, 'likelihood', self.seed, first, size)
            given = sampling.given(family, rows, 'conditions', self.seed, first)
            batch = sampling.split_over_devices((rows['image'], given, keys))
            values = jax.device_get(run(self.state, *batch))
            for name, value in values.items():
                grown = np.asarray(value, np.float64)[mask]
                found[name] = np.concatenate([found.get(name, np.zeros(0)), grown])
            finished = len(found['log_prob']) == count
            if path is not None and (finished or time.monotonic() - saved > SAVE_SECONDS):
                write_npz(path, found)
                saved = time.monotonic()
            progress.update(len(found['log_prob']))
        progress.close()
        return found


@functools.lru_cache(maxsize=4)
def program(blueprint: Blueprint, log_prob: Any, traceable: bool) -> Any:
    """Return the function that scores a batch, compiled once for a likelihood that scores many checkpoints."""

    def score(state, images, given, keys):
        found = log_prob(blueprint.bind_state(state), images, given, keys)
        return dict(found) if isinstance(found, Mapping) else {'log_prob': found}

    return jax.jit(score) if traceable else score
