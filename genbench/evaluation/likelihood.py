"""Log-likelihood of a whole split. Progress is kept on disk, so that an interruption loses only seconds."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genbench.data import pipeline
from genbench.data.sources import Arrays
from genbench.families.base import Likelihood
from genbench.training import processes, sampling
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
        """Return all values, in every process. Each of several keeps its own beside `path` until all are there."""
        whole = (read_npz(path) if path else None) or {}  # what an earlier evaluation has scored
        if not processes.several():
            return self._score_part(log_prob, traceable, title, (0, count), whole, path)
        start, stop = processes.part(processes.agreed(len(whole.get('log_prob', ()))), count)
        own = path.with_name(f'{path.stem}.{start}-{stop}.npz') if path else None
        kept = (read_npz(own) if own else None) or {}
        mine = self._score_part(log_prob, traceable, title, (start, stop), kept, own)
        said = processes.exchange(json.dumps(list(mine)).encode())  # a process without images has no names
        for name in sorted({name for names in said for name in json.loads(names)}):
            whole[name] = np.concatenate([whole.get(name, np.zeros(0)), processes.gathered(mine.get(name))])
        if path is not None and own is not None:
            processes.first_does(functools.partial(write_npz, path, whole))
            own.unlink(missing_ok=True)
        return whole

    def _score_part(
        self, log_prob: Any, traceable: bool, title: str, span: tuple[int, int], found: dict[str, np.ndarray],
        path: pathlib.Path | None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return the values of a span of the images, of which the first are `found`; `path` keeps them."""
        run = program(self.blueprint, log_prob, traceable)
        done, count = span[0] + len(found.get('log_prob', ())), span[1]
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
            finished = span[0] + len(found['log_prob']) == count
            if path is not None and (finished or time.monotonic() - saved > SAVE_SECONDS):
                write_npz(path, found)
                saved = time.monotonic()
            progress.update(span[0] + len(found['log_prob']))
        progress.close()
        return found


@functools.lru_cache(maxsize=4)
def program(blueprint: Blueprint, log_prob: Any, traceable: bool) -> Any:
    """Return the function that scores a batch, compiled once for a likelihood that scores many checkpoints."""

    def score(state, images, given, keys):
        found = log_prob(blueprint.bind_state(state), images, given, keys)
        return dict(found) if isinstance(found, Mapping) else {'log_prob': found}

    return jax.jit(score) if traceable else score
