"""The order of training images, and the two ways they reach the step: resident on the device, or streamed by Grain.

The order is a function of the seed and the position alone: position p lies in epoch p // n, and each epoch has its own
permutation. Step s takes positions [s · batch, (s + 1) · batch). Both ways deliver the same batches.
"""

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from genbench.data.sources import Arrays, stack
from genbench.errors import UserError

# 'image': integers (batch, height, width, channels); 'label': (batch,) int32; further fields of the rows
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Order:
    """Which of `size` images stands at each position of an endless, reshuffled pass over the data."""

    size: int
    seed: int

    def indices(self, start: int, count: int) -> np.ndarray:
        """Image numbers at positions start … start + count − 1, shape (count,) int32."""
        positions = np.arange(start, start + count)
        epochs, offsets = positions // self.size, positions % self.size
        return np.concatenate(
            [_permutation(self.size, self.seed, int(e))[offsets[epochs == e]] for e in np.unique(epochs)]
        )


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size).astype(np.int32)


class Feed(Protocol):
    """Where a training step gets its batch.

    `constants` go to the devices once; `inputs(step)` is what travels for each step; `batch` runs inside the step.
    `rows` are rows of the training set by number, to look at.
    """

    constants: Any
    order: Order

    def inputs(self, step: int) -> Any: ...

    def batch(self, constants: Any, inputs: Any) -> Batch: ...

    def rows(self, numbers: np.ndarray) -> Batch: ...

    def close(self) -> None: ...


class Rows:
    """The rows of a batch that this process brings to its devices; without a placement, all of them as they are."""

    def __init__(self, batch_size: int, place: jax.sharding.Sharding | None):
        self._place, self.batch_size = place, batch_size
        parts = [slice(None)] if place is None else [
            index[0] for index in place.addressable_devices_indices_map((batch_size,)).values() if index is not None
        ]  # fmt: skip
        self.numbers = np.unique(np.concatenate([np.arange(batch_size)[part] for part in parts]))

    def put(self, values: np.ndarray) -> Any:
        """The rows `numbers` of an array → that array, of all rows, split over the devices of all processes."""
        if self._place is None:
            return values
        if self._place.is_fully_addressable:
            return jax.device_put(values, self._place)

        def part(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(self.batch_size)
            return values[slice(*np.searchsorted(self.numbers, (first, last)))]

        return jax.make_array_from_callback((self.batch_size, *values.shape[1:]), self._place, part)


class ResidentFeed:
    """The whole set lives on the devices as integers; a step receives image numbers and gathers.

    Args:
      place: how a batch is split over the devices; None leaves it to the step.
    """

    def __init__(self, arrays: Arrays, order: Order, batch_size: int, place: jax.sharding.Sharding | None = None):
        self.constants = arrays.columns()
        self.order, self._rows = order, Rows(batch_size, place)

    def inputs(self, step: int) -> Any:
        numbers = self.order.indices(step * self._rows.batch_size, self._rows.batch_size)
        return self._rows.put(numbers[self._rows.numbers])

    def batch(self, constants: Any, inputs: jax.Array) -> Batch:
        return _widened({name: values[inputs] for name, values in constants.items()})

    def rows(self, numbers: np.ndarray) -> Batch:
        return {name: values[numbers] for name, values in self.constants.items()}

    def close(self) -> None:
        """Nothing is held."""


class StreamedFeed:
    """Batches that Grain reads from a random-access source ahead of the step that needs them.

    Each process reads the rows of its own devices; two batches are on their way to the devices while a step runs.

    Args:
      place: how a batch is split over the devices; None leaves it to the step.
      workers: processes that read and decode; with 0, threads of this process do.
      threads: that read at the same time in this process, or in each worker.
      ahead: batches that threads keep ready.
      fields: that the batches need beside image and label.
    """

    constants: Any = ()

    def __init__(
        self, source: Any, order: Order, batch_size: int, place: jax.sharding.Sharding | None = None, *,
        workers: int = 0, threads: int = 8, ahead: int = 16, fields: Sequence[str] = (),
    ):  # fmt: skip
        import grain  # takes half a second, which resident sets need not wait

        self._grain: Any = grain
        self.order, self._rows, self._workers = order, Rows(batch_size, place), workers
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._source, self._fields = source, tuple(fields)
        read = functools.partial(_read, source, order, batch_size, self._rows.numbers, self._fields)
        self._batches = grain.MapDataset.range(2**62 // batch_size).map(read)
        self._next, self._iterator = -1, None

    def inputs(self, step: int) -> Batch:
        if step != self._next:
            self.close()
            batches = self._batches[step:].to_iter_dataset(self._options)
            if self._workers:
                flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, which nobody else parses
                options = self._grain.MultiprocessingOptions(num_workers=self._workers)
                batches = batches.mp_prefetch(options, worker_init_fn=_quiet)
            on_devices = batches.map(lambda batch: {name: self._rows.put(values) for name, values in batch.items()})
            fetched = self._grain.experimental.ThreadPrefetchIterDataset(on_devices, prefetch_buffer_size=2)
            self._iterator = iter(fetched)
        self._next = step + 1
        assert self._iterator is not None
        return next(self._iterator)

    def batch(self, constants: Any, inputs: Batch) -> Batch:
        return _widened(inputs)

    def rows(self, numbers: np.ndarray) -> Batch:
        return _fetch(self._source, numbers, self._fields)

    def close(self) -> None:
        """Stop reading ahead, and the workers."""
        if self._iterator is not None:
            self._iterator.close()


def _quiet(*_: int) -> None:
    """A worker says nothing on how it decodes."""
    logging.getLogger('absl').setLevel(logging.CRITICAL)


def _widened(batch: Batch) -> Batch:
    """Integers as int32, other numbers as float32."""

    def one(values: Any) -> Any:
        return values.astype(jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32)

    return {name: one(values) for name, values in batch.items()}


def _read(source: Any, order: Order, batch_size: int, rows: np.ndarray, fields: Sequence[str], step: int) -> Batch:
    """Some rows of the batch of a step."""
    return _fetch(source, order.indices(int(step) * batch_size, batch_size)[rows], fields)


def _fetch(source: Any, numbers: np.ndarray, fields: Sequence[str]) -> Batch:
    many = getattr(source, '__getitems__', None)
    records = many(numbers.tolist()) if many else [source[int(number)] for number in numbers]
    return stack(records, fields)


def flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_crop(images: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """Each image moved by up to `padding` pixels along both sides, and continued by reflection.

    Raises:
      UserError: the images are not larger than the padding.
    """
    count, height, width, _ = images.shape
    if padding >= min(height, width):
        raise UserError(f'data.random_crop is {padding}; it should be less than the sides of the images, {height} and '
                        f'{width}.')  # fmt: skip
    starts = jax.random.randint(key, (count, 2), 0, 2 * padding + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode='reflect')
    cut = lambda image, start: jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])  # noqa: E731
    return jax.vmap(cut)(padded, starts)


def padded_batches(arrays: Arrays, batch_size: int):
    """Every row once, in order: (rows, mask, indices); the last batch is padded with masked copies."""
    for start in range(0, len(arrays), batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < len(arrays)
        taken = np.where(mask, indices, 0)
        rows = arrays.rows(taken)
        yield {**rows, 'image': rows['image'].astype(np.int32)}, mask, indices
