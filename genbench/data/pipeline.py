"""The order of training images, and the two ways they reach the step: resident on the device, or streamed by Grain.

The order depends only on the seed and the position. Position p is in epoch p // n, and each epoch has its own
permutation. Steps take consecutive positions: step s takes [s · batch, (s + 1) · batch) if all batches have the same
size. Both ways deliver the same batches.
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

# 'image': integers (batch, height, width, channels); 'label': (batch,) int32; and the other fields of the rows
Batch = dict[str, Any]
Shape = tuple[int, ...] | None  # shape of the images in a batch; None: as in the data


@dataclasses.dataclass(frozen=True)
class Order:
    """Which of `size` images is at each position of an endless pass over the data, reshuffled in every epoch."""

    size: int
    seed: int

    def indices(self, start: int, count: int) -> np.ndarray:
        """The image numbers at positions start … start + count − 1, (count,) int32."""
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
    """The batch sizes: pairs of the first step and the batch size from there on. The first pair is for step 0."""

    sizes: tuple[tuple[int, int], ...]

    def positions(self, step: int) -> tuple[int, int]:
        """The position of the first image in a step's batch, and the number of images."""
        at, size, position = 0, 0, 0
        for first, later in self.sizes:
            if first > step:
                break
            at, size, position = first, later, position + (first - at) * size
        return position + (step - at) * size, size


class Feed(Protocol):
    """The source of a training step's batch.

    `constants` go to the devices once, and `inputs(step)` go there for each step. `batch` runs inside the step and
    gives the images the shape `shape`. `rows` gets rows by number, on the host.
    """

    constants: Any
    taken: 'Taken'

    def inputs(self, step: int) -> Any: ...

    def batch(self, constants: Any, inputs: Any, shape: Shape = None) -> Batch: ...

    def rows(self, numbers: np.ndarray, shape: Shape = None) -> Batch: ...

    def joined(self, beside: Mapping[str, Any]) -> 'Feed':
        """The same rows with further arrays (n, …), one entry per row of the set. Call it before the first batch."""
        ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Taken:
    """The images that a step takes, and those of them that this process brings to its devices.

    Attributes:
      own: the places of this process's rows in a batch, by the batch size.
    """

    order: Order
    batches: Batches
    own: Mapping[int, np.ndarray]

    def whole(self, step: int) -> np.ndarray:
        """The image numbers of a step's batch."""
        return self.order.indices(*self.batches.positions(step))

    def part(self, step: int) -> np.ndarray:
        """The image numbers of this process's rows."""
        numbers = self.whole(step)
        return numbers[self.own[len(numbers)]]


class Rows:
    """The rows of each batch that this process brings to its devices. Without a placement, this is the whole batch."""

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
        """This process's rows of an array → the array for the whole batch, split over all devices."""
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
    """Keeps the whole set on the devices as integers. A step gets image numbers and gathers its images.

    Args:
      batches: how many images each step takes.
      place: how a batch is split over the devices; None leaves this to the step.
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
        """Do nothing, since this feed holds no resources."""


class StreamedFeed:
    """Batches that Grain reads from a random-access source ahead of the step that needs them.

    Each process reads the rows for its own devices. While a step runs, two batches are on their way to the devices.

    Args:
      batches: how many images each step takes.
      place: how a batch is split over the devices; None leaves this to the step.
      workers: the number of processes that read and decode; with 0, threads of this process do so.
      threads: the number of threads that read at the same time, in this process or in each worker.
      ahead: the number of batches that threads keep ready.
      fields: the fields that batches need in addition to image and label.
    """

    constants: Any = ()

    def __init__(
        self, source: Any, order: Order, batches: int | Batches, place: jax.sharding.Sharding | None = None, *,
        workers: int = 0, threads: int = 8, ahead: int = 16, fields: Sequence[str] = (),
    ):  # fmt: skip
        import grain  # takes half a second, which resident data sets do not need

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
                flags.FLAGS.mark_as_parsed()  # Grain reads its own flags, and nobody else parses them
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
        """Stop reading ahead and stop the workers."""
        if self._iterator is not None:
            self._iterator.close()


def _quiet(*_: int) -> None:
    """Silence a worker's messages about decoding."""
    logging.getLogger('absl').setLevel(logging.CRITICAL)


def first_rows(feed: Feed, count: int, shape: Shape) -> Batch:
    """The first `count` rows in the order of training, on the host; all of them once if there are fewer."""
    order = feed.taken.order
    return widened(feed.rows(order.indices(0, min(count, order.size)), shape))


def shapes(feed: Feed, count: int, shape: Shape) -> Batch:
    """The shapes and types of a batch of `count` images. This reads one image."""
    one = jax.eval_shape(lambda: widened(feed.rows(np.zeros(1, np.int32), shape)))
    return {name: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype) for name, leaf in one.items()}


def _resized(batch: Batch, shape: Shape) -> Batch:
    return batch if shape is None else {**batch, 'image': resize(batch['image'], shape)}


def widened(batch: Batch) -> Batch:
    """Convert integers to int32 and other numbers to float32."""

    def one(values: Any) -> Any:
        return values.astype(jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32)

    return {name: one(values) for name, values in batch.items()}


def _read(fetch: Callable[[np.ndarray], Batch], taken: Taken, step: int) -> Batch:
    """This process's rows of a step's batch."""
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
    """Shift each image by up to `padding` pixels along both sides, and continue it by reflection.

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
    """Every row once, in order: (rows, mask, indices). Masked copies pad the last batch."""
    for start in range(0, len(arrays), batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < len(arrays)
        taken = np.where(mask, indices, 0)
        rows = arrays.rows(taken)
        yield {**rows, 'image': rows['image'].astype(np.int32)}, mask, indices
