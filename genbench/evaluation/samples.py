"""Samples of one checkpoint with one sampler, stored on disk in shards and drawn only once for all metrics."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.sources import Arrays
from genbench.evaluation.protocol import stem
from genbench.families.base import Family, Sampler
from genbench.training import sampling
from genbench.training.files import read_npz, write_npz
from genbench.training.metrics import Progress
from genbench.training.state import State

SHARD = 1024  # images per file; an interruption loses at most the file being drawn


def slug(sampler: Sampler) -> str:
    """The file-name form of a sampler, as for its picture: heun_25, or heun_25_g2.0 with guidance."""
    return stem(sampler.protocol)


def drawn_conditions(family: Family, train: Arrays, seed: int, shard: int, count: int) -> Given:
    """The conditions of the images of a shard, taken from rows drawn from the train split."""
    if not family.conditions:
        return None
    entropy = [number % 2**64 for number in (seed, family.config.train.seed, shard)]
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    rows = train.rows(draw.choice(len(train), count))
    return sampling.given(family, rows, 'conditions', seed, shard * SHARD)


@dataclasses.dataclass
class SampleStore:
    """Image i of a seed is the same whatever the shard, the batch and the number of devices.

    Attributes:
      folder: where the shards are stored; one folder for each checkpoint, average, sampler and seed.
      given: (shard number, images in it) → conditions, or None for an unconditional model.
      conditions: what a speed depends on; shards drawn under different conditions are not timed together.
    """

    folder: pathlib.Path
    drawer: sampling.Drawer
    state: State
    sampler: Sampler
    seed: int
    batch_size: int
    given: Callable[[int, int], Given]
    conditions: dict[str, Any]
    quiet: bool = False
    _warm: bool = False

    def batches(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield images start … stop − 1 as integer arrays, one shard at a time, and draw those that are missing."""
        progress = Progress(f'sample {slug(self.sampler)}', start, stop, 'image', quiet=self.quiet)
        for shard in range(start // SHARD, -(-stop // SHARD)):
            low, high = max(start - shard * SHARD, 0), min(stop - shard * SHARD, SHARD)
            yield self._shard(shard, high, progress)[low:high]
        progress.close()

    def speed(self, stop: int) -> float | None:
        """Images a second of the shards of the first `stop` images, without compilation; None if drawn elsewhere."""
        timed = [self._read(shard) for shard in range(-(-stop // SHARD))]
        mine = [part for part in timed if part is not None and part[2] == self.conditions]
        seconds = sum(part[1] for part in mine)
        return sum(len(part[0]) for part in mine) / seconds if seconds else None

    def _path(self, shard: int) -> pathlib.Path:
        return self.folder / f'shard_{shard:05d}.npz'

    def _read(self, shard: int) -> tuple[np.ndarray, float, dict[str, Any]] | None:
        found = read_npz(self._path(shard))
        return (
            None if found is None else (found['images'], float(found['seconds']), json.loads(str(found['conditions'])))
        )

    def _shard(self, shard: int, count: int, progress: Progress) -> np.ndarray:
        """Return at least the first `count` images of a shard."""
        found = self._read(shard)
        have = np.zeros((0, *self.drawer.family.spec.shape), np.uint8) if found is None else found[0]
        if len(have) < count:
            began = shard * SHARD + len(have)
            drawn, seconds = self._draw(shard, len(have), count, lambda done: progress.update(began + done))
            same = found is not None and found[2] == self.conditions
            have = np.concatenate([have, drawn])
            timing = seconds + (found[1] if found is not None and same else 0.0)
            measured = self.conditions if same or found is None else {}
            values = {'images': have, 'seconds': timing, 'conditions': json.dumps(measured)}
            write_npz(self._path(shard), values)
        progress.update(shard * SHARD + count)
        return have

    def _draw(self, shard: int, low: int, high: int, progress: Callable[[int], None]) -> tuple[np.ndarray, float]:
        given = conditions.cut(self.given(shard, SHARD), low, high)
        if not self._warm:  # compile outside the timed part
            one = dataclasses.replace(self.sampler, num_steps=1)
            self.drawer.draw(self.state, one, min(self.batch_size, high - low), 0, given)
            self._warm = True
        began = time.monotonic()
        images = self.drawer.draw(
            self.state, self.sampler, high - low, self.seed, given, progress, first=shard * SHARD + low
        )
        kind = np.uint8 if self.drawer.family.spec.levels <= 256 else np.int32
        return images.astype(kind), time.monotonic() - began
