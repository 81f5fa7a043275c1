"""The device mesh and where arrays live on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from genbench.errors import UserError

BATCH_AXES = ('data', 'fsdp')  # a batch is split over both


def make_mesh() -> Mesh:
    """All devices along the axis 'data'; axes 'fsdp' and 'tensor' have size one."""
    return jax.make_mesh((jax.device_count(), 1, 1), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis over the batch axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch(batch_size: int, mesh: Mesh, key: str = 'train.batch_size') -> None:
    """Raise a UserError when the devices do not divide a batch."""
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    if batch_size < 1 or batch_size % ways:
        near = max(ways, batch_size // ways * ways)
        raise UserError(f'{key} is {batch_size}, which {ways} devices do not divide; use for example {near}.')
