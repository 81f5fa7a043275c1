"""Everything that a config names, opened once: data, borrowed runs, family, mesh and feed."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genbench import config as configs
from genbench import families
from genbench.config import Config
from genbench.data import opening, pipeline, sources
from genbench.errors import UserError
from genbench.families import stages
from genbench.families.base import Family
from genbench.training import beginnings, placement, preparation, runs
from genbench.training import mesh as meshes
from genbench.training.step import Constants


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A config and everything it names: enough to trace, compile or run its steps.

    Attributes:
      loans: the runs that the family builds on.
      builder: of the data set; None if noise replaces its images.
      folder: of the run. It stores the data that the family prepares for itself; without a folder they are zeros.
    """

    config: Config
    family: Family
    mesh: jax.sharding.Mesh
    loans: Mapping[str, runs.Loan]
    builder: Any
    folder: runs.Folder | None = None

    @functools.cached_property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays that the family prepares for each row of the train split, by name."""
        if self.builder is None:
            rows = sources.noise(self.family.spec, 1, self.family.fields).columns()
        else:
            rows = sources.stack([self.builder.as_data_source(self.config.data.train_split)[0]], self.family.fields)
        found = preparation.shapes(self.family, self._lent, rows)
        data = self.config.data
        if found and (data.flip or data.random_crop or 'augmentation' in self.family.conditions):
            raise UserError('data.flip, data.random_crop and the condition augmentation would change images from which '
                            'this run prepares data; remove them.')  # fmt: skip
        return found

    @property
    def store(self) -> preparation.Store:
        """Where the data that the family prepares are stored."""
        assert self.folder is not None
        info, kept, split = self.builder.info, configs.lasting(self.config), self.config.data.train_split
        made_of = {
            'data': {'name': info.full_name, 'bytes': info.splits['train'].num_bytes}
            | ({'split': split} if split != 'train' else {}),
            'borrowed': {name: loan.description['state_sha256'] for name, loan in self.loans.items()},
            'seed': self.config.train.seed,
            'config': {key: value for key, value in kept.items() if key.startswith('family.')},
        }
        return preparation.Store(self.folder.prepared, made_of, self.shapes, sources.count(self.builder, split))

    def make_data(self, quiet: bool = False) -> float | None:
        """Let the family prepare what the run folder still lacks. The operations this took; None if unknown."""
        if not self.shapes:
            return 0.0
        lent = jax.tree.map(lambda leaf, place: meshes.put(leaf, place.sharding), self._lent, self._places_lent)
        return preparation.compute_in(self.store, self.family, lent, self.mesh, self._rows.rows, quiet)

    def preparing(self, rows: int) -> float | None:
        """Operations of `make_data` for this many rows, without doing it; None if unknown."""
        if not self.shapes:
            return 0.0
        size = self.config.train.batch_size
        batch = sources.noise(self.family.spec, size, self.family.fields).columns()
        once = preparation.operations(self.family, self._lent, batch)
        return None if once is None else once * -(-rows // size)

    @functools.cached_property
    def feed(self) -> pipeline.Feed:
        """The rows to train on, with what the family has prepared for each."""
        return self._rows.joined(self.store.open()) if self.shapes and self.folder else self.outline

    @property
    def outline(self) -> pipeline.Feed:
        """The same feed, with zeros in place of what the family prepares."""
        count = self._rows.taken.order.size
        return self._rows.joined(preparation.promised(self.shapes, count)) if self.shapes else self._rows

    @functools.cached_property
    def _rows(self) -> pipeline.Feed:
        """The rows to train on, opened on first use. They are kept on the devices if they fit, else streamed."""
        config = self.config
        place = None if meshes.is_promised(self.mesh) else meshes.split_batch(self.mesh)
        seed, fields, parts = config.train.seed, self.family.fields, stages.spans(self.family)
        batches = pipeline.Batches(tuple((span.first, span.batch_size) for span in parts))
        if self.builder is None:
            size = max(span.batch_size for span in parts)
            arrays = sources.noise(self.family.spec, size, fields)
            return pipeline.ResidentFeed(arrays, pipeline.Order(size, seed), batches, place)
        split = config.data.train_split
        size = sources.count(self.builder, split)
        order = pipeline.Order(size, seed)
        kinds = [jax.ShapeDtypeStruct(self.family.spec.shape, np.uint8), *self.shapes.values()]
        if size * sum(math.prod(one.shape) * one.dtype.itemsize for one in kinds) <= config.data.resident_bytes:
            return pipeline.ResidentFeed(sources.load(self.builder, split, fields), order, batches, place)
        source = self.builder.as_data_source(split)
        return pipeline.StreamedFeed(source, order, batches, place, workers=config.data.workers, fields=fields)

    @functools.cached_property
    def places(self) -> Constants:
        """Shapes, types and placements of `constants`, without moving anything."""
        whole = meshes.replicated(self.mesh)
        rows = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), self.feed.constants
        )
        return Constants(rows, self._places_lent)

    @functools.cached_property
    def constants(self) -> Constants:
        """What every step reads and none changes, put on the devices once."""
        found = Constants(self.feed.constants, self._lent)
        return jax.tree.map(lambda leaf, place: meshes.put(leaf, place.sharding), found, self.places)

    @property
    def _places_lent(self) -> Any:
        return placement.of_lent(self._lent, self.mesh, placement.parse_rules(self.config.mesh.rules))

    @property
    def _lent(self) -> dict[str, Any]:
        return {name: loan.state for name, loan in self.loans.items()}


def prepare(
    config: Config,
    loans: Mapping[str, runs.Loan] | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
    on_noise: bool = False,
    folder: runs.Folder | None = None,
) -> Prepared:
    """Open what a config names. Nothing is written or computed, and images are read only when `feed` is used.

    Args:
      loans: the runs that it builds on. By default they are read from the folders that the config names.
      mesh: by default all devices, along the axes of the config.
      folder: of the run, to read what its family prepares for itself.
      on_noise: replace the images by one batch of noise. The data set need not be prepared.

    Raises:
      UserError: the mesh does not fit, something that the config names is missing or unsuitable, or a stage is
        impossible.
    """
    mesh = mesh_of(config) if mesh is None else mesh
    loans = runs.borrow(config) if loans is None else loans
    builder = None if on_noise else opening.open_data(config.data)
    count = None if builder is None else sources.count(builder, config.data.train_split)
    spec = opening.spec(config.data, guess=True) if builder is None else sources.spec_of(builder)
    borrowed = runs.describe({name: loan.description for name, loan in loans.items()})
    if spec.is_plane and config.network.name not in ('mlp', 'maxout', 'made', 'maf', 'none'):
        raise UserError(f'{spec.name} has points in the plane, but network.name={config.network.name} is for images; '
                        'use network.name=mlp.')  # fmt: skip
    family = families.get(config.family.name)(config, spec, borrowed)
    if count is not None:
        family.check_rows(count)
    beginnings.check(family, mesh)
    return Prepared(config, family, mesh, loans, builder, folder)


def mesh_of(config: Config, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The devices, by default all of them, along the axes of the config.

    Raises:
      UserError: their number, the batch size or a placement rule does not fit.
    """
    mesh = meshes.make_mesh(config.mesh, devices)
    placement.parse_rules(config.mesh.rules)
    meshes.check_batch(config.train.batch_size // config.train.accumulate, mesh)
    return mesh
