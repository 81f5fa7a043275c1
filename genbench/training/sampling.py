"""Draw samples from a trained state, batch by batch, and save them as pictures."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.families.base import Family, Sampler
from genbench.training import mesh as meshes
from genbench.training import processes
from genbench.training.state import Blueprint, State


def own_mesh() -> jax.sharding.Mesh:
    """A mesh of this process's own devices. Each process samples and scores independently of the others."""
    return meshes.make_mesh(devices=jax.local_devices())


def replicate(state: State) -> State:
    """The state, copied to every device of this process."""
    return meshes.put(state, meshes.replicated(own_mesh()))


def own_copy(state: State) -> State:
    """The state on this process's own devices. Each of several processes, which must all call this, gets a whole copy.

    A state of one process stays where it is.
    """
    if not processes.several():
        return state
    everywhere = meshes.replicated(mesh_of(state))
    return replicate(jax.jit(lambda arrays: arrays, out_shardings=everywhere)(state))


def mesh_of(state: State) -> jax.sharding.Mesh:
    """The mesh that a state is on: all processes' devices during training, otherwise this process's own."""
    sharding = getattr(jax.tree.leaves(state)[0], 'sharding', None)
    if not isinstance(sharding, jax.sharding.NamedSharding):
        return own_mesh()
    return meshes.make_mesh(devices=list(sharding.mesh.devices.flat))


def parts(state: State) -> State:
    """The parts of a state, and of what is lent with it, that sampling and scoring need."""
    return {name: state[name] for name in ('params', 'aux', 'lent') if name in state}


def split_over_devices(batch: Any, mesh: jax.sharding.Mesh | None = None) -> Any:
    """Split arrays along their first axis over all devices, or replicate them if the devices do not divide it.

    Args:
      mesh: by default the devices of this process.
    """
    mesh = own_mesh() if mesh is None else mesh
    divides = all(len(leaf) % mesh.size == 0 for leaf in jax.tree.leaves(batch))
    return meshes.put(batch, meshes.split_batch(mesh) if divides else meshes.replicated(mesh))


def whole_batches(size: int, mesh: jax.sharding.Mesh | None = None) -> int:
    """Round up to a multiple of the number of devices of the mesh; by default, those of this process."""
    ways = jax.local_device_count() if mesh is None else mesh.size
    return -(-size // ways) * ways


NOISE = 'evaluation.seed and train.seed'  # what evaluation's random numbers depend on, in a protocol's words


def image_keys(family: Family, purpose: str, seed: int, start: int, count: int) -> jax.Array:
    """Keys (count,) of the images from number `start` on, for a seed of evaluation. An image's key ignores its batch.

    The training seed enters too. Runs with different seeds have independent noise, so that their spread includes that
    of training and of sampling. Runs with the same seed share their noise and can be compared in pairs.
    """
    root = rng.numbered(rng.root(seed, purpose), family.config.train.seed % 2**32)
    return rng.of_images(root, start, count)


def given(family: Family, rows: Any, purpose: str, seed: int, start: int = 0) -> Given:
    """The conditions that a model gets for these rows, as host arrays. Random ones follow from the rows' numbers."""
    count = len(rows['image'])
    return jax.device_get(family.given(rows, image_keys(family, purpose, seed, start, count)))


def shown(family: Family, count: int, rows: Callable[[np.ndarray], Any], seed: int) -> Given:
    """Conditions for a picture of samples: those of the first rows, or classes in turn and zeros if there are only
    classes and numbers.

    Args:
      rows: a function from numbers to rows of the train split.
    """
    if not family.conditions:
        return None
    if all(form.type in ('classes', 'number') for form in family.forms.values()):
        return {name: np.arange(count) % form.size if form.size else np.zeros(count, np.float32)
                for name, form in family.forms.items()}  # fmt: skip
    return given(family, rows(np.arange(count)), 'shown', seed)


class Drawer:
    """Compiled sampling of one run. One program serves every number of steps of a solver."""

    def __init__(self, blueprint: Blueprint, batch_size: int):
        self.family = blueprint.family
        self._blueprint, self._batch_size = blueprint, batch_size
        self._programs: dict[Any, Any] = {}
        self._sizes: dict[Any, int] = {}  # the batch size of each compiled program

    def draw(
        self,
        state: State,
        sampler: Sampler,
        count: int,
        seed: int,
        given: Given = None,
        progress: Callable[[int], None] | None = None,
        first: int = 0,
    ) -> np.ndarray:
        """Integer images (count, …) of this seed, from number `first` on."""
        mesh, images = mesh_of(parts(state)), []
        size = self._size(sampler, count, mesh)
        for start in range(0, count, size):
            part = conditions.cut(given, start, start + size)
            batch = split_over_devices((image_keys(self.family, 'samples', seed, first + start, size), part), mesh)
            samples = self._program(sampler, mesh)(parts(state), *batch, sampler)
            images.append(np.asarray(samples.images))
            if progress is not None:
                progress(min(start + size, count))
        return np.concatenate(images)[:count]

    def invert(self, state: State, sampler: Sampler, images: np.ndarray, given: Given = None) -> np.ndarray:
        """The noise (count, …) from which the sampler would make integer images (count, …); see `Family.inverted`."""
        mesh, found = mesh_of(parts(state)), []
        size = self._size(sampler, len(images), mesh)
        for start in range(0, len(images), size):
            rows = dict(conditions.cut({**(given or {}), 'image': images}, start, start + size) or {})
            keys = image_keys(self.family, 'inverse', 0, start, size)
            batch = split_over_devices((rows.pop('image'), keys, rows or None), mesh)
            found.append(np.asarray(self._inverse(parts(state), *batch, sampler)))
        return np.concatenate(found)[: len(images)]

    @functools.cached_property
    def _inverse(self) -> Any:
        return jax.jit(functools.partial(invert, self._blueprint))

    def _size(self, sampler: Sampler, count: int, mesh: jax.sharding.Mesh) -> int:
        """The batch size for this many images. A remainder reuses an existing program, and the surplus is cut."""
        key = dataclasses.replace(sampler, num_steps=0)
        self._sizes[key] = max(self._sizes.get(key, 0), whole_batches(min(self._batch_size, count), mesh))
        return self._sizes[key]

    def _program(self, sampler: Sampler, mesh: jax.sharding.Mesh) -> Any:
        key = dataclasses.replace(sampler, num_steps=0)
        if key not in self._programs:
            self._programs[key] = program(self._blueprint, mesh)
        return self._programs[key]


def program(blueprint: Blueprint, mesh: jax.sharding.Mesh) -> Any:
    """A function that draws a batch: (state, keys, conditions, sampler) → samples, on every device of the mesh."""
    everywhere = meshes.replicated(mesh)  # so that every process has all images
    return jax.jit(functools.partial(sample, blueprint), out_shardings=everywhere)


def sample(blueprint: Blueprint, state: Any, keys: Any, given: Any, sampler: Sampler) -> Any:
    return blueprint.family.sample(blueprint.bind_state(state), keys, given, sampler)


def invert(blueprint: Blueprint, state: Any, images: Any, keys: Any, given: Any, sampler: Sampler) -> Any:
    return blueprint.family.inverted(blueprint.bind_state(state), images, keys, given, sampler)


def to_uint8(images: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Convert integer levels to 0 … 255."""
    return np.round(images * (255 / (spec.levels - 1))).astype(np.uint8)


def grid(images: np.ndarray, columns: int, *, scale: int = 1, gap: int = 2) -> np.ndarray:
    """Arrange uint8 images (n, height, width, 1 or 3) in one picture (H, W, 3), `columns` per row, enlarged."""
    images = np.repeat(np.repeat(images, scale, axis=1), scale, axis=2)
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    n, height, width, _ = images.shape
    rows = -(-n // columns)
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 96, np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        picture[top : top + height, left : left + width] = image
    return picture


def columns_for(count: int) -> int:
    """The number of columns, near a square grid, that leaves the fewest empty places in the last row."""
    if count <= 10:
        return count
    side = count**0.5
    return min(range(math.ceil(side / 2), math.floor(2 * side) + 1), key=lambda n: (-count % n, abs(n - side)))


def save_grid(path: pathlib.Path, images: np.ndarray, spec: DataSpec) -> None:
    """Save integer images as a PNG, enlarging small ones so that they can be seen. Points become a density map."""
    if spec.is_plane:
        Image.fromarray(map_of_points(images, spec)).save(path)
        return
    scale = max(1, 256 // max(spec.shape[:2]) // 8)
    Image.fromarray(grid(to_uint8(images, spec), columns_for(len(images)), scale=scale)).save(path)


def map_of_points(points: np.ndarray, spec: DataSpec, cells: int = 96, scale: int = 4) -> np.ndarray:
    """Points (n, 1, 2, 1) → a grey picture of their square, y upwards. Cells with more points are brighter."""
    x, y = points.reshape(-1, 2).T.astype(int) * cells // spec.levels  # 16 bits would overflow
    counts = np.zeros((cells, cells))
    np.add.at(counts, (cells - 1 - y, x), 1)
    picture = np.round(255 * np.sqrt(counts / max(counts.max(), 1))).astype(np.uint8)
    return np.repeat(np.repeat(picture, scale, axis=0), scale, axis=1)
