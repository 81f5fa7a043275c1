"""What one checkpoint does with points in the plane, for people to look at: WORKDIR/exploration/.

* real: where the points of the evaluated split are;
* paths: how a sampler with several steps carries points from where they start to where they end;
* density: the log-density of the model over [−1, 1]², for families with a likelihood.

exploration.json lists the contents. `genbench.evaluation.exploration` does the same for images.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from genbench.data.sources import Arrays
from genbench.data.spec import DataSpec
from genbench.evaluation import exploration
from genbench.evaluation.likelihood import LikelihoodScorer
from genbench.evaluation.reference import RealSets
from genbench.families.base import Likelihood, Sampler
from genbench.training import sampling
from genbench.training.files import write_atomically
from genbench.training.state import Blueprint, State

CELLS = 96  # of the density, along each side of the square
PATHS = 200
WINDOW = 2.0  # the picture of paths shows [−2, 2]², twice the square that holds the data
RANGE = 8.0  # nats from white to black
PIXELS = 384  # along each side of a picture
START, LINE, END = (220, 150, 40), (70, 95, 150), (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Explorer:
    """Draws pictures of one average of a checkpoint. The seed determines everything random.

    Attributes:
      sampler: the sampler on the leaderboard.
      followed: draws the paths; the same as `sampler` if that has several steps.
      likelihood: gives the density; None for a family without one.
    """

    blueprint: Blueprint
    state: State
    sampler: Sampler
    followed: Sampler
    likelihood: Likelihood | None
    seed: int
    batch_size: int

    def write(
        self, folder: pathlib.Path, identity: Mapping[str, Any], told: exploration.Told, real: RealSets, count: int
    ) -> None:
        """Write whatever this identity does not have yet.

        Args:
          identity: config hash and step of the checkpoint, and further facts to note.
          told: (shard, count) → conditions, as the evaluation draws them.
          count: how many real points to show.
        """
        index, family = folder / 'exploration.json', self.blueprint.family
        if exploration.same(index, identity):
            return
        values = {
            'format': exploration.FORMAT, **identity, 'family': family.name, 'shape': family.spec.shape,
            **self.sampler.protocol, 'images': 0, 'paths': None, 'density': None,
        }  # fmt: skip
        points = real.split.rows(slice(0, count))['image']
        exploration.save(folder / 'real.png', sampling.map_of_points(points, family.spec))
        if family.path is not None and int(self.followed.num_steps) > 1:
            reach = WINDOW * getattr(family.space, 'scale', 1.0)
            exploration.save(folder / 'paths.png', lines(self._states(told), reach))
            values['paths'] = {**self.followed.protocol, 'points': PATHS, 'reach': reach}
        if self.likelihood is not None and not family.forms:
            exploration.save(folder / 'density.png', shades(self._log_density(self.likelihood)))
            values['density'] = {'method': self.likelihood.method, 'kind': self.likelihood.kind, 'range': RANGE}
        write_atomically(index, json.dumps(values) + '\n')

    def _states(self, told: exploration.Told) -> np.ndarray:
        """Where each point is after each step, (steps + 1, PATHS, 2)."""
        family, sampler = self.blueprint.family, self.followed
        keys = sampling.image_keys(family, 'exploration', self.seed, 0, PATHS)

        @jax.jit
        def run(state, keys, given):
            networks = self.blueprint.bind_state(state)
            start = sampler.options.temperature * family.starts(keys)
            return family.trace(networks, start, keys, given, sampler, np.int32(0)).states

        return np.asarray(run(self.state, keys, told(0, PATHS))).reshape(-1, PATHS, 2)

    def _log_density(self, likelihood: Likelihood) -> np.ndarray:
        """log p (or its bound) in nats at the centres of the cells, (CELLS, CELLS): rows are y, columns x."""
        spec = self.blueprint.family.spec
        split = Arrays(lattice(spec), np.zeros(CELLS**2, np.int32))
        scorer = LikelihoodScorer(self.blueprint, self.state, split, self.seed, self.batch_size, quiet=True)
        nats = scorer.nats(likelihood)['log_prob']
        return nats.reshape(CELLS, CELLS) - spec.num_dims * spec.log_bin_width


def lattice(spec: DataSpec) -> np.ndarray:
    """Integer images (CELLS², 1, 2, 1) of the points at the centres of the cells, row by row from the least y."""
    places = ((np.arange(CELLS) + 0.5) * spec.levels / CELLS).astype(int)
    x, y = np.meshgrid(places, places)
    return np.stack([x, y], -1).reshape(-1, 1, 2, 1)


def shades(log_density: np.ndarray) -> np.ndarray:
    """Log-densities (rows, columns) with the least y first → a grey picture, y upwards.

    White is the highest density. A cell whose density is e^RANGE times lower, or less, is black.
    """
    finite = np.where(np.isfinite(log_density), log_density, -np.inf)
    top = finite.max() if np.isfinite(finite).any() else 0.0
    light = np.clip(1 + (finite - top) / RANGE, 0, 1)
    scale = PIXELS // len(light)
    return np.round(255 * light[::-1]).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)


def lines(states: np.ndarray, reach: float) -> np.ndarray:
    """Paths (steps + 1, n, 2) in [−reach, reach]² → a picture, y upwards: amber starts, blue lines, white ends.

    Paths that are not finite are left out.
    """
    states = states[:, np.isfinite(states).all((0, 2))]
    side = 2 * PIXELS  # twice as fine, then averaged
    picture = Image.new('RGB', (side, side))
    draw = ImageDraw.Draw(picture)
    at = (states * [1, -1] / reach + 1) * (side / 2)
    at = np.clip(at, -1e5, 1e5)  # far enough that no direction changes
    for path in at.swapaxes(0, 1):
        draw.line([tuple(point) for point in path], LINE, 2)
    for points, colour, size in ((at[0], START, 3), (at[-1], END, 4)):
        for x, y in points:
            draw.ellipse((x - size, y - size, x + size, y + size), colour)
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BOX))
