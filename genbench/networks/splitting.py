"""On which devices the images of convolutions lie."""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding, PartitionSpec

Array = jax.Array

PLACES = contextvars.ContextVar[NamedSharding | None]('sharding of images', default=None)


@contextlib.contextmanager
def images_split(places: NamedSharding | None) -> Iterator[None]:
    """Keep the images of convolutions traced inside, and their gradients, split over devices as `places` says.

    Left to itself, XLA's partitioner splits channels wherever the gradient of a kernel is split, and moves the images.

    Args:
      places: axes of the mesh for the first axis of the images. None leaves the choice to the partitioner.
    """
    token = PLACES.set(places)
    try:
        yield
    finally:
        PLACES.reset(token)


def placed(x: Array) -> Array:
    """x (batch, …), split over devices as `images_split` says."""
    places = PLACES.get()
    if places is None or len(x) % math.prod(places.mesh.shape[axis] for axis in places.spec[0]):
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, NamedSharding(places.mesh, PartitionSpec(*places.spec, *rest)))
