"""Points in the plane, as TFDS builders that need no download: the sets on which generative models are drawn.

A point is an image of one row and two columns, x and y in [−1, 1], cut into 4,096 levels each. Sets have 10,000 points
to train on and 2,000 to test, from fixed seeds. `ring`, `grid` and `checkerboard` have densities in closed form.

`ring` and `grid` are those of Lin et al. 2018 (PacGAN): eight normals on a circle, with a deviation of 0.01 of its
radius, and 25 on a grid, with 0.05 of half their distance, here scaled into the square.

The sets `otcfm_…` are those of Tong et al. 2024, as the authors' code draws them (runner/src/datamodules), divided by
`REACH` to fit into the square. `family.scale` gives them back their size, which matters beside noise of deviation one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

LEVELS = 4096
COUNTS = {'train': 10_000, 'test': 2_000}
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]  # → points (n, 2), and parts (n,)

_angles = np.arange(8) * np.pi / 4
MODES = {
    'ring': (0.8 * np.stack([np.cos(_angles), np.sin(_angles)], -1), 0.008),
    'grid': (0.4 * np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3)), -1).reshape(-1, 2), 0.01),
}  # centres (modes, 2), and the standard deviation of each
SQUARES = np.array([(row, column) for row in range(4) for column in range(4) if (row + column) % 2 == 0])
REACH = {'otcfm_normals': 10, 'otcfm_moons': 4, 'otcfm_s_curve': 4, 'otcfm_far_moons': 24, 'otcfm_far_normals': 24}
SIDE = 0.4  # the side of a square of the checkerboard, which fills [−0.8, 0.8]²


def log_density(name: str, points: np.ndarray) -> np.ndarray:
    """log p of points (n, 2) under `ring`, `grid` or `checkerboard` in nats, (n,); −∞ outside the squares."""
    if name == 'checkerboard':
        row, column = np.floor((points + 2 * SIDE) / SIDE).astype(int).T
        inside = (np.abs(points) < 2 * SIDE).all(1) & ((row + column) % 2 == 0)
        return np.where(inside, -np.log(len(SQUARES) * SIDE**2), -np.inf)
    centres, deviation = MODES[name]
    square = ((points[:, None] - centres) ** 2).sum(-1) / deviation**2
    return np.logaddexp.reduce(-square / 2, axis=1) - np.log(len(centres) * 2 * np.pi * deviation**2)


def points_of(images: np.ndarray) -> np.ndarray:
    """Integer images (n, 1, 2, 1) → the points (n, 2) at the centres of their cells."""
    return (np.asarray(images).reshape(-1, 2) + 0.5) * (2 / LEVELS) - 1


def _modes(name: str) -> Draw:
    def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        centres, deviation = MODES[name]
        part = random.integers(len(centres), size=count)
        return centres[part] + deviation * random.normal(size=(count, 2)), part

    return draw


def _checkerboard(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    part = random.integers(len(SQUARES), size=count)
    return (SQUARES[part] - 2 + random.uniform(size=(count, 2))) * SIDE, part


def _moons(random: np.random.Generator, count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    part, angle = random.integers(2, size=count), np.pi * random.uniform(size=count)
    upper = np.stack([np.cos(angle), np.sin(angle)], -1)
    x = np.where(part[:, None] == 0, upper, [1, 0.5] - upper)
    return x - [0.5, 0.25] + noise * random.normal(size=(count, 2)), part


def _two_moons(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    points, part = _moons(random, count, 0.05)
    return points / 2, part


def _otcfm_moons(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    points, part = _moons(random, count, 0.05)
    return (2 * points + [0, 0.5]) / REACH['otcfm_moons'], part


def _otcfm_far_moons(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, over both coordinates together, are 0 and 7."""
    points, part = _moons(random, count, 0.1)
    points = points + [0.5, 0.25]
    return 7 * (points - points.mean()) / points.std(ddof=1) / REACH['otcfm_far_moons'], part


def _otcfm_s_curve(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    angle = 3 * np.pi * (random.uniform(size=count) - 0.5)
    x = np.stack([np.sin(angle), np.sign(angle) * (np.cos(angle) - 1)], -1) + 0.05 * random.normal(size=(count, 2))
    return 1.5 * x / REACH['otcfm_s_curve'], np.zeros(count, int)


def _otcfm_normals(name: str, radius: float, deviation: float) -> Draw:
    def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        part = random.integers(8, size=count)
        centres = radius * np.stack([np.cos(_angles), np.sin(_angles)], -1)
        return (centres[part] + deviation * random.normal(size=(count, 2))) / REACH[name], part

    return draw


def _pinwheel(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    part = random.integers(5, size=count)
    along, across = random.normal(1, 0.3, count), random.normal(0, 0.1, count)
    angle = 2 * np.pi * part / 5 + 0.25 * np.exp(along)
    x = np.stack([along * np.cos(angle) - across * np.sin(angle), along * np.sin(angle) + across * np.cos(angle)], -1)
    return 0.45 * x, part


def _swiss_roll(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    angle = 1.5 * np.pi * (1 + 2 * random.uniform(size=count))
    x = angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1) + 0.3 * random.normal(size=(count, 2))
    return x / 17, np.zeros(count, int)


class Plane(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Points in a square, each with the part of the figure that it belongs to."""

    VERSION = tfds.core.Version('1.0.0')
    parts = 1
    draw: Any = staticmethod(_swiss_roll)  # a Draw

    def _info(self) -> tfds.core.DatasetInfo:
        encoding = tfds.features.Encoding.ZLIB
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Tensor(shape=(1, 2, 1), dtype=np.uint16, encoding=encoding),
                    'label': tfds.features.ClassLabel(num_classes=self.parts),
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(levels=LEVELS),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        points, parts = self.draw(np.random.default_rng(list(COUNTS).index(split)), COUNTS[split])
        images = np.clip(np.floor((points + 1) * (LEVELS / 2)), 0, LEVELS - 1).astype(np.uint16)
        for index, (image, part) in enumerate(zip(images, parts, strict=True)):
            yield index, {'image': image.reshape(1, 2, 1), 'label': int(part)}


class TwoMoons(Plane):
    parts, draw = 2, staticmethod(_two_moons)


class Ring(Plane):
    parts, draw = 8, staticmethod(_modes('ring'))


class Grid(Plane):
    parts, draw = 25, staticmethod(_modes('grid'))


class Checkerboard(Plane):
    parts, draw = 8, staticmethod(_checkerboard)


class Pinwheel(Plane):
    parts, draw = 5, staticmethod(_pinwheel)


class SwissRoll(Plane):
    """One part."""


class OtcfmNormals(Plane):
    parts, draw = 8, staticmethod(_otcfm_normals('otcfm_normals', 5, 1))


class OtcfmFarNormals(Plane):
    parts, draw = 8, staticmethod(_otcfm_normals('otcfm_far_normals', 12, 1.5))


class OtcfmMoons(Plane):
    parts, draw = 2, staticmethod(_otcfm_moons)


class OtcfmFarMoons(Plane):
    parts, draw = 2, staticmethod(_otcfm_far_moons)


class OtcfmSCurve(Plane):
    draw = staticmethod(_otcfm_s_curve)


SETS: dict[str, type[Plane]] = {builder.name: builder for builder in Plane.__subclasses__()}


def drawn(name: str, split: str) -> np.ndarray:
    """32,768 points (n, 2) of a set in [−1, 1]²; the points of the two splits have nothing in common."""
    random = np.random.default_rng([len(COUNTS), list(COUNTS).index(split)])
    return np.asarray(SETS[name].draw(random, 2**15)[0])
