"""What a config names, opened once: data, borrowed runs, family, mesh and feed."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genbench import families
from genbench.config import Config
from genbench.data import opening, pipeline, sources
from genbench.families.base import Family
from genbench.training import mesh as meshes
from genbench.training import placement, runs
from genbench.training.step import Constants


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A config with what it names: enough to trace, compile or do its steps.

    Attributes:
      loans: the runs that the family builds on.
      builder: of the data set; None where noise takes the place of its images.
    """

    config: Config
    family: Family
    mesh: jax.sharding.Mesh
    loans: Mapping[str, runs.Loan]
    builder: Any

    @functools.cached_property
    def feed(self) -> pipeline.Feed:
        """The rows to train on, opened when first asked for: on the devices where they fit, else streamed."""
        config, place = self.config, meshes.split_batch(self.mesh)
        batch, seed, fields = config.train.batch_size, config.train.seed, self.family.fields
        if self.builder is None:
            arrays = sources.noise(self.family.spec, batch, fields)
            return pipeline.ResidentFeed(arrays, pipeline.Order(batch, seed), batch, place)
        size = self.builder.info.splits['train'].num_examples
        order = pipeline.Order(size, seed)
        if size * int(np.prod(self.builder.info.features['image'].shape)) <= config.data.resident_bytes:
            return pipeline.ResidentFeed(sources.load(self.builder, 'train', fields), order, batch, place)
        source = self.builder.as_data_source('train')
        return pipeline.StreamedFeed(source, order, batch, place, workers=config.data.workers, fields=fields)

    @functools.cached_property
    def places(self) -> Constants:
        """Shapes, types and places of `constants`, without moving anything."""
        whole, rules = meshes.replicated(self.mesh), placement.parse_rules(self.config.mesh.rules)
        rows = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), self.feed.constants
        )
        return Constants(rows, placement.of_lent(self._lent, self.mesh, rules))

    @functools.cached_property
    def constants(self) -> Constants:
        """What every step reads and none changes, put on the devices once."""
        found = Constants(self.feed.constants, self._lent)
        return jax.tree.map(lambda leaf, place: meshes.put(leaf, place.sharding), found, self.places)

    @property
    def _lent(self) -> dict[str, Any]:
        return {name: loan.state for name, loan in self.loans.items()}


def prepare(
    config: Config,
    loans: Mapping[str, runs.Loan] | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
    on_noise: bool = False,
) -> Prepared:
    """Open what a config names; nothing is written or computed, and images are read when `feed` is asked for.

    Args:
      loans: the runs that it builds on; by default they are read from the folders that the config names.
      mesh: by default all devices, along the axes of the config.
      on_noise: put noise in the place of the images, of one batch; the data set need not be prepared.

    Raises:
      UserError: the mesh does not fit, or what the config names is not there or does not fit.
    """
    mesh = mesh_of(config) if mesh is None else mesh
    loans = runs.borrow(config) if loans is None else loans
    builder = None if on_noise else opening.open_data(config.data)
    spec = opening.spec(config.data) if builder is None else sources.spec_of(builder)
    borrowed = runs.describe({name: loan.description for name, loan in loans.items()})
    family = families.get(config.family.name)(config, spec, borrowed)
    return Prepared(config, family, mesh, loans, builder)


def mesh_of(config: Config) -> jax.sharding.Mesh:
    """All devices along the axes of the config.

    Raises:
      UserError: their number, the batch or a rule of placement does not fit.
    """
    mesh = meshes.make_mesh(config.mesh)
    placement.parse_rules(config.mesh.rules)
    meshes.check_batch(config.train.batch_size // config.train.accumulate, mesh)
    return mesh
