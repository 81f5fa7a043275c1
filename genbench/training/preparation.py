"""Data that a family prepares once for itself (`Family.prepare`). It is computed in chunks, kept in the run's folder
and read by row.

The folder `prepared` has an .npy file for each array, whose first axis indexes the rows of the train split. Its
`manifest.json` records what the arrays were made of, their shapes, and the hash of each finished chunk. A chunk enters
the manifest once it is on disk, so that an interrupted preparation resumes after the last finished chunk.
"""

import functools
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from genbench import reading, rng
from genbench.data import pipeline
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Family
from genbench.training import mesh as meshes
from genbench.training import processes, telemetry
from genbench.training import state as states
from genbench.training.files import write_atomically
from genbench.training.metrics import Progress
from genbench.training.state import Blueprint, Tree

CHUNK = 2**26  # approximate bytes per chunk over all arrays; an interruption loses at most one chunk
Shapes = Mapping[str, jax.ShapeDtypeStruct]  # the shapes of one row, by name
_MANIFEST = {
    'made_of': dict, 'rows': int, 'chunk': int, 'arrays': {str: {'shape': [int], 'dtype': str}},
    'chunks': [{str: str}], 'flops': (float, None),
}  # fmt: skip


def shapes(family: Family, lent: Tree, rows: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what the family prepares for one row, without computing it. Empty for most families.

    Args:
      lent: what borrowed runs lend, or the shapes of it.
      rows: one or more rows, as the feed provides them.
    """
    lender = _lender(family)  # outside the trace, because it is kept
    found = jax.eval_shape(lambda *arguments: _prepare(family, lender, *arguments), lent, jax.random.key(0), 0, rows)
    return {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in found.items()}


def _lender(family: Family) -> Blueprint:
    """A blueprint that binds the borrowed runs, which are the same in all stages."""
    return states.blueprint(family, family.stages[0].name)


def _prepare(
    family: Family, lender: Blueprint, lent: Tree, root: Array, first: Any, rows: Batch
) -> Mapping[str, Array]:
    keys = rng.of_images(root, first, len(rows['image']))
    return family.prepare(lender.lenders(lent), {**pipeline.widened(dict(rows)), 'key': keys})


def operations(family: Family, lent: Tree, batch: Mapping[str, Any]) -> float | None:
    """Operations of preparing one batch; None if unknown. `lent` may be shapes."""
    lender = _lender(family)
    program = jax.jit(lambda *arguments: _prepare(family, lender, *arguments))
    return telemetry.flops_of(program.trace(lent, rng.root(0, 'preparation'), np.int32(0), batch))


def promised(shapes: Shapes, rows: int) -> dict[str, np.ndarray]:
    """Zeros in place of arrays that have not been made. They take no memory."""
    return {name: np.broadcast_to(np.zeros((), one.dtype), (rows, *one.shape)) for name, one in shapes.items()}


class Stored:
    """An array in an .npy file. It is read by row, and mapped anew in every process that receives it."""

    def __init__(self, path: pathlib.Path):
        self._path, self._values = path, np.load(path, mmap_mode='r', allow_pickle=False)
        self.shape, self.dtype = self._values.shape, self._values.dtype

    def __reduce__(self) -> Any:
        return Stored, (self._path,)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._values[rows]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype)


class Store:
    """The prepared arrays of a run folder.

    Args:
      made_of: what they depend on, in words and numbers.
      shapes: of one row.
      rows: number of rows of the train split.
    """

    def __init__(self, folder: pathlib.Path, made_of: Mapping[str, Any], shapes: Shapes, rows: int):
        self.folder, self.shapes, self.rows = folder, dict(shapes), rows
        self._manifest = folder / 'manifest.json'
        self._values: dict[str, Any] = {
            'made_of': json.loads(json.dumps(made_of)),
            'rows': rows,
            'arrays': {name: {'shape': list(one.shape), 'dtype': np.dtype(one.dtype).name}
                       for name, one in shapes.items()},
        }  # fmt: skip

    def manifest(self) -> dict[str, Any]:
        """The stored manifest. It has no chunks if nothing has been prepared.

        Raises:
          UserError: the stored data are damaged or were made from something else.
        """
        advice = f'Delete {self.folder}, and training will prepare the data again.'
        found = reading.read_json_if_any(self._manifest, _MANIFEST, advice)
        if found is None:
            return {**self._values, 'chunk': 0, 'chunks': [], 'flops': None}
        for part, value in self._values.items():
            if found[part] != value:
                old, new = (json.dumps(one) for one in _apart(found[part], value))
                raise UserError(f'{self.folder} was prepared for another run ({part}: {old[:80]} there, {new[:80]} '
                                f'here). {advice}')  # fmt: skip
        return found

    def done(self, manifest: Mapping[str, Any]) -> int:
        """The number of finished rows."""
        return min(self.rows, manifest['chunk'] * len(manifest['chunks']))

    def make(self, chunk: int, compute: Callable[[int, int], Mapping[str, np.ndarray]], flops: float | None) -> None:
        """Compute and store the missing rows.

        Args:
          chunk: number of rows to write together, if nothing is stored yet.
          compute: a function of (first row, end) that returns these rows.
          flops: operations of the whole preparation.
        """
        manifest = self.manifest()
        if not manifest['chunks']:
            manifest |= {'chunk': chunk, 'flops': flops}
        while (first := self.done(manifest)) < self.rows:
            values = compute(first, min(first + manifest['chunk'], self.rows))
            manifest['chunks'] = [*manifest['chunks'], {name: _sha256(one) for name, one in values.items()}]
            processes.first_does(functools.partial(self._append, values, first, manifest))

    def _append(self, values: Mapping[str, np.ndarray], first: int, manifest: Mapping[str, Any]) -> None:
        """Write rows after the finished ones, over anything that an interruption left there."""
        self.folder.mkdir(exist_ok=True)
        for name, one in values.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {
                'descr': np.lib.format.dtype_to_descr(one.dtype), 'fortran_order': False,
                'shape': (self.rows, *one.shape[1:]),
            })  # fmt: skip
            with self._path(name).open('r+b' if first else 'wb') as file:
                if not first:
                    file.write(header.getvalue())
                file.truncate(header.tell() + first * one[:1].nbytes)
                file.seek(0, os.SEEK_END)
                file.write(np.ascontiguousarray(one).data)
                file.flush()
                os.fsync(file.fileno())
        write_atomically(self._manifest, json.dumps(manifest, indent=2) + '\n')

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f'{name}.npy'

    def open(self) -> dict[str, Stored]:
        """The arrays, memory-mapped, after checking all of them against their hashes.

        Raises:
          UserError: they are unfinished, damaged, or were made from something else.
        """
        manifest = self.manifest()
        if self.done(manifest) < self.rows:
            raise UserError(f'{self.folder} has only {self.done(manifest)} of the {self.rows} rows that this run '
                            'needs; genbench train prepares the others.')  # fmt: skip
        return {name: self._open(name, manifest) for name in self.shapes}

    def _open(self, name: str, manifest: Mapping[str, Any]) -> Stored:
        path, shape = self._path(name), self.shapes[name]
        try:
            reading.check_kind(path)
            stored = Stored(path)
            size = manifest['chunk']
            whole = (stored.shape, stored.dtype) == ((self.rows, *shape.shape), shape.dtype) and all(
                _sha256(stored[number * size : (number + 1) * size]) == hashes[name]
                for number, hashes in enumerate(manifest['chunks'])
            )
        except (ValueError, EOFError, KeyError, OSError, UserError):
            whole = False
        if not whole:
            raise UserError(f'{path} is damaged. Delete {self.folder}, and training will prepare the data again.')
        return stored


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _apart(old: Any, new: Any) -> tuple[Any, Any]:
    """The parts in which two values differ, without the parts they share."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    names = [name for name in [*old, *(set(new) - set(old))] if old.get(name) != new.get(name)]
    return {name: old.get(name) for name in names}, {name: new.get(name) for name in names}


def compute_in(
    store: Store, family: Family, lent: Tree, mesh: jax.sharding.Mesh, rows: Callable[[np.ndarray], Batch], quiet: bool
) -> float | None:
    """Compute the missing rows of a store. Batches have the size and the placement of training.

    Args:
      lent: what borrowed runs lend, on the devices.
      rows: a function from numbers to rows of the train split.

    Returns:
      Operations of the whole preparation, over all starts; None if unknown.
    """
    manifest = store.manifest()
    if (done := store.done(manifest)) == store.rows:
        return manifest['flops']
    size, whole = family.config.train.batch_size, meshes.replicated(mesh)
    lender, root = _lender(family), meshes.put(rng.root(family.config.train.seed, 'preparation'), whole)
    program = jax.jit(lambda *arguments: _prepare(family, lender, *arguments), out_shardings=whole)
    progress = Progress('prepare', done, store.rows, 'row', quiet=quiet)

    def batch(first: int) -> tuple[Any, ...]:
        numbers = np.minimum(np.arange(first, first + size), store.rows - 1)  # the last row pads the last batch
        return lent, root, np.int32(first), meshes.put(rows(numbers), meshes.split_batch(mesh))

    traced = program.trace(*batch(0))
    flops = telemetry.flops_of(traced)
    compiled = traced.lower().compile()

    def compute(first: int, end: int) -> dict[str, np.ndarray]:
        parts = []
        for start in range(first, end, size):
            parts.append(jax.device_get(compiled(*batch(start))))
            progress.update(min(start + size, end))
        return {name: np.concatenate([part[name] for part in parts])[: end - first] for name in store.shapes}

    row = sum(int(np.prod(one.shape)) * one.dtype.itemsize for one in store.shapes.values())
    try:
        total = None if flops is None else flops * -(-store.rows // size)
        store.make(max(1, CHUNK // (row * size)) * size, compute, total)
    finally:
        progress.close()
    return store.manifest()['flops']
