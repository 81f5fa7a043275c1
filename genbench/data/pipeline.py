"""The order of training images, and the two ways they reach the step: resident on the device, or streamed by Grain.

The order is a function of the seed and the position alone: position p lies in epoch p // n, and each epoch has its own
permutation. Steps take positions one after the other: step s takes [s · batch, (s + 1) · batch) where all batches have
one size. Both ways deliver the same batches.
"""

import copy
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from genbench.data.sources import Arrays, stack
from genbench.data.spec import resize
from genbench.errors import UserError

# 'image': integers (batch, height, width, channels); 'label': (batch,) int32; further fields of the rows
Batch = dict[str, Any]
Shape = tuple[int, ...] | None  # of the images of a batch; None: as in the data


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


@dataclasses.dataclass(frozen=True)
class Batches:
    """How many images the batches have: (first step, images in a batch from there on), the first of step 0."""

    sizes: tuple[tuple[int, int], ...]

    def positions(self, step: int) -> tuple[int, int]:
        """(position of the first image, number of images) of the batch of a step."""
        at, size, position = 0, 0, 0
        for first, later in self.sizes:
            if first > step:
                break
            at, size, position = first, later, position + (first - at) * size
        return position + (step - at) * size, size


class Feed(Protocol):
    """Where a training step gets its batch.

    `constants` go to the devices once; `inputs(step)` is what travels for each step; `batch` runs inside the step and
    gives the images `shape`. `rows` are rows by number, on the host.
    """

    constants: Any
    taken: 'Taken'

    def inputs(self, step: int) -> Any: ...

    def batch(self, constants: Any, inputs: Any, shape: Shape = None) -> Batch: ...

    def rows(self, numbers: np.ndarray, shape: Shape = None) -> Batch: ...

    def joined(self, beside: Mapping[str, Any]) -> 'Feed':
        """The same rows with further arrays (n, …), by row of the set; not once batches were asked for."""
        ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Taken:
    """Which images a step takes, and which of them this process brings to its devices.

    Attributes:
      own: places of its rows in a batch, by the batch's size.
    """

    order: Order
    batches: Batches
    own: Mapping[int, np.ndarray]

    def whole(self, step: int) -> np.ndarray:
        """Image numbers of the batch of a step."""
        return self.order.indices(*self.batches.positions(step))

    def part(self, step: int) -> np.ndarray:
        """Image numbers of the rows of this process."""
        numbers = self.whole(step)
        return numbers[self.own[len(numbers)]]


class Rows:
    """The rows of batches that this process brings to its devices; without a placement, all of them as they are."""

    def __init__(self, order: Order, batches: int | Batches, place: jax.sharding.Sharding | None):
        batches = Batches(((0, batches),)) if isinstance(batches, int) else batches
        self._place, own = place, {size: self._own(size, place) for _, size in batches.sizes}
        self.taken = Taken(order, batches, own)

    @staticmethod
    def _own(size: int, place: jax.sharding.Sharding | None) -> np.ndarray:
        parts = [slice(None)] if place is None else [
            index[0] for index in place.addressable_devices_indices_map((size,)).values() if index is not None
        ]  # fmt: skip
        return np.unique(np.concatenate([np.arange(size)[part] for part in parts]))

    def put(self, values: np.ndarray) -> Any:
        """The rows of this process of an array → that array, of the whole batch, split over all devices."""
        if self._place is None:
            return values
        if self._place.is_fully_addressable:
            return jax.device_put(values, self._place)
        size, own = next((size, own) for size, own in self.taken.own.items() if len(own) == len(values))

        def part(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(size)
            return values[slice(*np.searchsorted(own, (first, last)))]

        return jax.make_array_from_callback((size, *values.shape[1:]), self._place, part)


class ResidentFeed:
    """The whole set lives on the devices as integers; a step receives image numbers and gathers.

    Args:
      batches: how many images each step takes.
      place: how a batch is split over the devices; None leaves it to the step.
    """

    def __init__(
        self, arrays: Arrays, order: Order, batches: int | Batches, place: jax.sharding.Sharding | None = None
    ):
        self.constants = arrays.columns()
        self._rows = Rows(order, batches, place)
        self.taken = self._rows.taken

    def inputs(self, step: int) -> Any:
        return self._rows.put(self.taken.part(step))

    def batch(self, constants: Any, inputs: jax.Array, shape: Shape = None) -> Batch:
        return _resized(widened({name: values[inputs] for name, values in constants.items()}), shape)

    def rows(self, numbers: np.ndarray, shape: Shape = None) -> Batch:
        return _resized({name: values[numbers] for name, values in self.constants.items()}, shape)

    def joined(self, beside: Mapping[str, Any]) -> 'ResidentFeed':
        feed = copy.copy(self)
        feed.constants = {**self.constants, **{name: np.asarray(values) for name, values in beside.items()}}
        return feed

    def close(self) -> None:
        """Nothing is held."""


class StreamedFeed:
    """Batches that Grain reads from a random-access source ahead of the step that needs them.

    Each process reads the rows of its own devices; two batches are on their way to the devices while a step runs.

    Args:
      batches: how many images each step takes.
      place: how a batch is split over the devices; None leaves it to the step.
      workers: processes that read and decode; with 0, threads of this process do.
      threads: that read at the same time in this process, or in each worker.
      ahead: batches that threads keep ready.
      fields: that the batches need beside image and label.
    """

    constants: Any = ()

    def __init__(
        self, source: Any, order: Order, batches: int | Batches, place: jax.sharding.Sharding | None = None, *,
        workers: int = 0, threads: int = 8, ahead: int = 16, fields: Sequence[str] = (),
    ):  # fmt: skip
        import grain  # takes half a second, which resident sets need not wait

        self._grain: Any = grain
        self._rows, self._workers = Rows(order, batches, place), workers
        self.taken = self._rows.taken
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._source, self._fields = source, tuple(fields)
        self._beside: Mapping[str, Any] = {}
        self._next, self._iterator = -1, None

    def inputs(self, step: int) -> Batch:
        if step != self._next:
            self.close()
            every = self._grain.MapDataset.range(2**62 // max(self.taken.own))
            batches = every.map(functools.partial(_read, self._fetch, self.taken))[step:].to_iter_dataset(self._options)
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

    def batch(self, constants: Any, inputs: Batch, shape: Shape = None) -> Batch:
        return _resized(widened(inputs), shape)

    def rows(self, numbers: np.ndarray, shape: Shape = None) -> Batch:
        return _resized(self._fetch(numbers), shape)

    def joined(self, beside: Mapping[str, Any]) -> 'StreamedFeed':
        feed = copy.copy(self)
        feed._beside = beside
        return feed

    @property
    def _fetch(self) -> Callable[[np.ndarray], Batch]:
        return functools.partial(_fetch, self._source, self._fields, self._beside)

    def close(self) -> None:
        """Stop reading ahead, and the workers."""
        if self._iterator is not None:
            self._iterator.close()


def _quiet(*_: int) -> None:
    """A worker says nothing on how it decodes."""
    logging.getLogger('absl').setLevel(logging.CRITICAL)


def shapes(feed: Feed, count: int, shape: Shape) -> Batch:
    """Shapes and types of a batch of so many images, for which one is read."""
    one = jax.eval_shape(lambda: widened(feed.rows(np.zeros(1, np.int32), shape)))
    return {name: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype) for name, leaf in one.items()}


def _resized(batch: Batch, shape: Shape) -> Batch:
    return batch if shape is None else {**batch, 'image': resize(batch['image'], shape)}


def widened(batch: Batch) -> Batch:
    """Integers as int32, other numbers as float32."""

    def one(values: Any) -> Any:
        return values.astype(jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32)

    return {name: one(values) for name, values in batch.items()}


def _read(fetch: Callable[[np.ndarray], Batch], taken: Taken, step: int) -> Batch:
    """The rows of this process in the batch of a step."""
    return fetch(taken.part(int(step)))


def _fetch(source: Any, fields: Sequence[str], beside: Mapping[str, Any], numbers: np.ndarray) -> Batch:
    many = getattr(source, '__getitems__', None)
    records = many(numbers.tolist()) if many else [source[int(number)] for number in numbers]
    return {**stack(records, fields), **{name: np.asarray(values[numbers]) for name, values in beside.items()}}


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
