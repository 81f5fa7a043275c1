"""Samples of one checkpoint with one sampler, stored on disk in shards and drawn only once for all metrics."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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

SHARD = 1024  # images per file; an interruption loses at most the current file


def slug(sampler: Sampler) -> str:
    """The file-name form of a sampler, as for its picture: heun_25, or heun_25_g2.0 with guidance."""
    return stem(sampler.protocol)


def drawn_conditions(family: Family, train: Arrays, seed: int, shard: int, count: int) -> Given:
    """The conditions of the images of a shard, taken from rows drawn from the train split."""
    if not family.conditions:
        return None
    return sampling.given(family, drawn_rows(family, train, seed, shard, count), 'conditions', seed, shard * SHARD)


def drawn_rows(family: Family, train: Arrays, seed: int, shard: int, count: int) -> dict[str, np.ndarray]:
    """The rows of the train split whose conditions the images of a shard have."""
    entropy = [number % 2**64 for number in (seed, family.config.train.seed, shard)]
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
    return train.rows(draw.choice(len(train), count))


def _add(progress: Progress, before: int, done: int) -> None:
    progress.update(before + done)


class _Part(NamedTuple):
    """Images of a shard from the one numbered `first` on, the time that they took, and what that depends on."""

    first: int
    images: np.ndarray
    seconds: float
    conditions: dict[str, Any]


@dataclasses.dataclass
class SampleStore:
    """Image i of a seed is the same whatever the shard, the batch, the process and the number of devices.

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
            yield self._shard(shard, low, high, progress)
        progress.close()

    def images(self, start: int, stop: int) -> np.ndarray:
        """The same as one array."""
        return np.concatenate([self._none, *self.batches(start, stop)])

    def speed(self, stop: int) -> float | None:
        """Images a second of the shards of the first `stop` images, without compilation; None if drawn elsewhere.

        Several processes draw at the same time, so their speeds are summed.
        """
        parts = [part for shard in range(-(-stop // SHARD)) for part in self._parts(shard)]
        mine = [part for part in parts if part.conditions == self.conditions]
        seconds = sum(part.seconds for part in mine) / self.conditions['machine'].get('processes', 1)
        return sum(len(part.images) for part in mine) / seconds if seconds else None

    @property
    def _none(self) -> np.ndarray:
        spec = self.drawer.family.spec
        return np.zeros((0, *spec.shape), np.uint8 if spec.levels <= 256 else np.int32)

    def _path(self, shard: int, first: int) -> pathlib.Path:
        return self.folder / f'shard_{shard:05d}{f"_{first:04d}" if first else ""}.npz'

    def _parts(self, shard: int) -> list[_Part]:
        """The stored parts of a shard: one file, or several if several processes or runs have drawn it."""
        found = []
        for path in sorted(self.folder.glob(f'shard_{shard:05d}*.npz')):
            values, first = read_npz(path), path.stem.removeprefix(f'shard_{shard:05d}').removeprefix('_') or '0'
            if values is not None and first.isdecimal():
                told = json.loads(str(values['conditions']))
                found.append(_Part(int(first), values['images'], float(values['seconds']), told))
        return found

    def _shard(self, shard: int, low: int, high: int, progress: Progress) -> np.ndarray:
        """The images low … high − 1 of a shard."""
        parts, images = self._parts(shard), [self._none]
        while low < high:
            part = next((one for one in parts if one.first <= low < one.first + len(one.images)), None)
            if part is None:
                end = min([high, *(one.first for one in parts if one.first > low)])
                drawn, seconds = self._draw(shard, low, end, functools.partial(_add, progress, shard * SHARD + low))
                part = _Part(low, drawn, seconds, self.conditions)
                values = {'images': drawn, 'seconds': seconds, 'conditions': json.dumps(self.conditions)}
                write_npz(self._path(shard, low), values)
            images.append(part.images[low - part.first : high - part.first])
            low += len(images[-1])
            progress.update(shard * SHARD + low)
        return np.concatenate(images)

    def _draw(self, shard: int, low: int, high: int, progress: Callable[[int], None]) -> tuple[np.ndarray, float]:
        given = conditions.cut(self.given(shard, SHARD), low, high)
        if not self._warm:  # compile before timing
            one = dataclasses.replace(self.sampler, num_steps=1)
            self.drawer.draw(self.state, one, min(self.batch_size, high - low), 0, given)
            self._warm = True
        began = time.monotonic()
        images = self.drawer.draw(
            self.state, self.sampler, high - low, self.seed, given, progress, first=shard * SHARD + low
        )
        return images.astype(self._none.dtype), time.monotonic() - began
