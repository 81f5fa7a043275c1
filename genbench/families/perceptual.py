"""The perceptual distance LPIPS as a part of a loss, with weights that the user gives.

R. Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018. `networks.perceptual` has
the network.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Family, Networks
from genbench.families.spaces import Pixels
from genbench.networks import perceptual, weights
from genbench.networks.perceptual import LPIPS, SMALLEST, TITLE
from genbench.networks.vgg import STAGES
from genbench.ranges import NOT_NEGATIVE, PATH

VGG, LINEAR = 'perceptual_vgg', 'perceptual_linear'
OPTIONS = {
    VGG: '',  # file of torchvision's VGG16: the loss also has the perceptual distance LPIPS; '': it does not
    LINEAR: '',  # file of its linear layers, vgg.pth of LPIPS 0.1
    'perceptual_weight': 1.0,  # of the perceptual distance
}
RANGES = {VGG: PATH, LINEAR: PATH, 'perceptual_weight': NOT_NEGATIVE}


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """LPIPS with the weights of two files. Its network is 'perceptual', which no optimizer changes.

    A run stores the weights with its state, so that it needs the files only when it begins.

    Attributes:
      side: enlarge smaller images to this many pixels a side, bilinearly; 0: compare them as they are.
    """

    vgg: str
    linear: str
    side: int = 0

    def networks(self) -> dict[str, nnx.Module]:
        return {'perceptual': LPIPS(STAGES)}

    def start(self, networks: Networks) -> None:
        """Give the network the weights of the files.

        Raises:
          UserError: a file is not there, has another hash than the published one, or is of another network.
        """
        held = _read(self.vgg, self.linear)
        state = nnx.state(networks['perceptual'])
        nnx.replace_by_pure_dict(state, weights.fill(nnx.to_pure_dict(state), held.__getitem__))
        nnx.update(networks['perceptual'], state)

    def distance(self, networks: Networks, x: Array, y: Array) -> Array:
        """LPIPS of pairs of images in [−1, 1] (batch, height, width, 1 or 3), (batch,)."""
        return networks['perceptual'](self._enlarged(x), self._enlarged(y))

    def _enlarged(self, x: Array) -> Array:
        height, width = (max(size, self.side) for size in x.shape[1:3])
        shape = len(x), height, width, x.shape[3]
        return x if shape == x.shape else jax.image.resize(x, shape, 'bilinear')


class PerceptualFamily(Family):
    """A basis beside that of a family whose loss may use LPIPS, `self.perceptual`, if weights are given."""

    enlarged: ClassVar[int] = 0  # the `side` of the images that it compares
    ranges = RANGES

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        found = super().defaults()
        return {**found, 'family': {**found['family'], **OPTIONS}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.perceptual = make(config.family, spec, self.enlarged)
        if self.perceptual and not isinstance(self.space, Pixels):
            raise UserError(f'LPIPS compares images, but this run models {self.space.name}; empty family.{VGG} and '
                            f'family.{LINEAR}.')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {**super().networks(rngs), **(self.perceptual.networks() if self.perceptual else {})}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        if self.perceptual:
            self.perceptual.start(networks)


def make(options: Any, spec: DataSpec, side: int = 0) -> Perceptual | None:
    """The perceptual distance that the section `family` asks for; None if it names no weights.

    Args:
      side: as of `Perceptual`.

    Raises:
      UserError: one of the files is not given, or the images are too small for the network or have other channels.
    """
    given = {key: options[key] for key in (VGG, LINEAR)}
    if not any(given.values()):
        return None
    if missing := [key for key, path in given.items() if not path]:
        raise UserError(f'A perceptual distance needs two files, but family.{missing[0]} is empty; name the file, or '
                        'empty both keys.')  # fmt: skip
    height, width, channels = spec.shape
    if max(min(height, width), side) < SMALLEST or channels not in (1, 3):
        raise UserError(f'LPIPS needs grey or RGB images of at least {SMALLEST} pixels a side, but these are {height}×'
                        f'{width} with {channels} channels; empty family.{VGG} and family.{LINEAR}.')  # fmt: skip
    return Perceptual(given[VGG], given[LINEAR], side)


def notes(chosen: Perceptual | None) -> Mapping[str, str]:
    """What a manifest says of the perceptual distance."""
    if chosen is None:
        return {'perceptual distance': 'none'}
    files = f'VGG16 {perceptual.VGG_SHA256[:12]}, linear layers {perceptual.LINEAR_SHA256[:12]}'
    return {'perceptual distance': f'{TITLE} ({files})'}


@functools.lru_cache(maxsize=1)
def _read(vgg: str, linear: str) -> dict[str, np.ndarray]:
    files = _file(VGG, vgg, perceptual.VGG_SHA256), _file(LINEAR, linear, perceptual.LINEAR_SHA256)
    return perceptual.read(*files, STAGES)


def _file(key: str, path: str, sha256: str) -> weights.Weights:
    file = pathlib.Path(path).expanduser()
    if (found := weights.hash_of(file, f'family.{key}')) != sha256:
        raise UserError(f'{file} (family.{key}) has the sha256 {found}, but {TITLE} has {sha256}. Other weights would '
                        'be another distance; use the published file.')  # fmt: skip
    return weights.Weights(file, found, published=True)
