"""The device mesh, and how batches and replicated arrays lie on it. `placement` decides where parameters lie."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from genbench.config import Config
from genbench.errors import UserError

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')  # both split a batch


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices along the axes 'data', 'fsdp' and 'tensor'. By default, all devices of all processes.

    Args:
      sizes: lengths of the axes. One of them may be -1 for the rest. By default all devices lie along 'data'.

    Raises:
      UserError: the product of the sizes is not the number of devices.
    """
    number = len(devices) if devices is not None else jax.device_count()
    shape = [(sizes or {'data': -1}).get(axis, 1) for axis in AXES]
    known = int(np.prod([size for size in shape if size != -1]))
    if any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise UserError(f'mesh is {_words(shape)}; sizes should be at least 1, and one may be -1 for the rest.')
    filled = [number // known if size == -1 else size for size in shape]
    if int(np.prod(filled)) != number:
        raise UserError(f'mesh is {_words(shape)}, but its product should be the number of devices, {number}.')
    if slices := _slices(jax.devices() if devices is None else devices):
        return Mesh(_over_slices(filled, slices, devices), AXES, axis_types=(AxisType.Auto,) * 3)
    return jax.make_mesh(tuple(filled), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def _slices(devices: Sequence[jax.Device]) -> int:
    """The number of TPU slices that the devices form; 0 for a single slice or for other devices."""
    number = len({getattr(device, 'slice_index', None) for device in devices})
    return number if number > 1 and devices[0].platform == 'tpu' else 0


def _over_slices(shape: Sequence[int], slices: int, devices: Sequence[jax.Device] | None) -> np.ndarray:
    """The devices with the slices along the axis 'data', so that only gradients travel between slices.

    Raises:
      UserError: the number of slices does not divide that axis.
    """
    if shape[0] % slices:
        raise UserError(f'mesh is {_words(shape)}; the number of slices, {slices}, should divide the axis data.')
    within, between = (shape[0] // slices, *shape[1:]), (slices, *(1 for _ in shape[1:]))
    return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)


def fitting(config: Config, most: int) -> int:
    """The largest number of devices, at most `most`, that the config's mesh and batch can use."""
    sizes = [config.mesh[axis] for axis in AXES]
    micro_batch = config.train.batch_size // max(1, config.train.accumulate)
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 not in sizes or known < 1:
        return known if 1 <= known <= most else 1
    return max(n for n in range(1, most + 1) if n == 1 or (n % known == 0 and micro_batch % n == 0))


def _words(shape: Sequence[int]) -> str:
    return ', '.join(f'{axis}={size}' for axis, size in zip(AXES, shape, strict=True))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Split the first axis over the batch axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Turn arrays that every process holds in full into global arrays. Each process moves the part its devices keep.

    For devices that this machine lacks, the result is shapes with placements.
    """
    if is_promised(sharding.mesh):
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _put_parts(leaf, sharding), tree)


def is_promised(mesh: Mesh | AbstractMesh) -> bool:
    """Whether the devices are only compiled for and do not exist, so that arrays are shapes with placements."""
    return isinstance(mesh, Mesh) and mesh.devices.flat[0] not in jax.devices()


def _put_parts(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _put_parts(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def check_batch(batch_size: int, mesh: Mesh, key: str = 'train.batch_size') -> None:
    """Raise a UserError if the number of devices does not divide a batch."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    if batch_size < 1 or batch_size % ways:
        near = max(ways, batch_size // ways * ways)
        raise UserError(f'{key} is {batch_size}, which is not divisible by {ways} devices; use {near}, for example.')
