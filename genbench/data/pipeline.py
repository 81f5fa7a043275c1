"""The order of training images, and the two ways they reach the step: resident on the device, or streamed by Grain.

The order is a function of the seed and the position alone: position p lies in epoch p // n, and each epoch has its own
permutation. Step s takes positions [s · batch, (s + 1) · batch). Both ways deliver the same batches.
"""

import dataclasses
import functools
from typing import Any, Protocol

import grain
import jax
import jax.numpy as jnp
import numpy as np

from genbench.data.sources import Arrays

Batch = dict[str, Any]  # 'image': integers (batch, height, width, channels); 'label': (batch,) int32


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

    `constants` go to the device once; `inputs(step)` is what travels for each step; `batch` runs inside the step.
    """

    constants: Any

    def inputs(self, step: int) -> Any: ...

    def batch(self, constants: Any, inputs: Any) -> Batch: ...


class ResidentFeed:
    """The whole set lives on the device as integers; a step receives image numbers and gathers."""

    def __init__(self, arrays: Arrays, order: Order, batch_size: int):
        self.constants = {'image': arrays.images, 'label': arrays.labels}
        self._order, self._batch_size = order, batch_size

    def inputs(self, step: int) -> np.ndarray:
        return self._order.indices(step * self._batch_size, self._batch_size)

    def batch(self, constants: Any, inputs: jax.Array) -> Batch:
        return {name: values[inputs].astype(jnp.int32) for name, values in constants.items()}


class StreamedFeed:
    """Batches read from a random-access source by Grain threads, ahead of the step that needs them."""

    constants: Any = ()

    def __init__(self, source: Any, order: Order, batch_size: int, *, threads: int = 8, ahead: int = 64):
        self._options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        self._dataset = (
            grain.MapDataset.range(2**62 // batch_size * batch_size)
            .map(lambda position: _record(source[int(order.indices(int(position), 1)[0])]))
            .batch(batch_size, drop_remainder=True)
        )
        self._next, self._iterator = -1, iter(())

    def inputs(self, step: int) -> Batch:
        if step != self._next:
            self._iterator = iter(self._dataset[step:].to_iter_dataset(self._options))
        self._next = step + 1
        return next(self._iterator)

    def batch(self, constants: Any, inputs: Batch) -> Batch:
        return {name: values.astype(jnp.int32) for name, values in inputs.items()}


def _record(example: dict[str, Any]) -> Batch:
    return {'image': example['image'], 'label': np.int32(example.get('label', 0))}


def flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def padded_batches(arrays: Arrays, batch_size: int):
    """Every image once, in order: (images, labels, mask, indices); the last batch is padded with masked copies."""
    for start in range(0, len(arrays), batch_size):
        indices = np.arange(start, start + batch_size)
        mask = indices < len(arrays)
        taken = np.where(mask, indices, 0)
        yield arrays.images[taken].astype(np.int32), arrays.labels[taken], mask, indices
