"""How a data set is prepared: the keys of `data` that decide which images there are and what their pixels hold."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from genbench.data import crops
from genbench.errors import UserError
from genbench.ranges import Range, each, one_of

RANGES: Mapping[str, Range] = {
    'data.size': each(Range(1, 8192), int),
    'data.crop': one_of(*crops.CROPS),
    'data.resize': one_of('', *crops.FILTERS),
    'data.channels': Range(0, 3),
    'data.test_share': Range(0, 1, above=True, below=True),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The same images prepared by another recipe are another data set.

    Attributes:
      size: (), for images that have one size already; one number for squares, or height and width.
      crop: how images of other sizes get there, a name of `crops.CROPS`.
      resize: the filter, a name of `crops.FILTERS`; '' is the one of the crop, or Lanczos.
      upscale: whether images smaller than the size are enlarged; otherwise they are left out.
      channels: 1 for grey, 3 for colour; 0 is grey if every image is.
      labels: '' for class folders, else the field `label`; the name of another field; or 'none'.
      test_share: of the images that the hash of their name puts into `test`, where no folder says what is test.
    """

    size: tuple[int, ...] = ()
    crop: str = 'center'
    resize: str = ''
    upscale: bool = False
    channels: int = 0
    labels: str = ''
    test_share: float = 0.1

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width; None where images keep their size."""
        return (self.size[0], self.size[-1]) if self.size else None

    @property
    def filter(self) -> str:
        """The name of the filter that is used."""
        return self.resize or crops.CROPS[self.crop].resize or 'lanczos'

    def check(self) -> None:
        """Raise a UserError where a part is none, or two do not go together."""
        for key, allowed in RANGES.items():
            allowed.check(key, getattr(self, key.removeprefix('data.')))
        crop = crops.CROPS[self.crop]
        if len(self.size) > 2:
            raise UserError(f'data.size is {self.size}; give one number for squares, or height and width.')
        if not self.size and (self.crop, self.resize, self.upscale) != ('center', '', False):
            raise UserError('data.crop, data.resize and data.upscale need a data.size to bring the images to.')
        if self.channels not in (0, 1, 3):
            raise UserError(
                f'data.channels is {self.channels}; it can be 1 (grey), 3 (colour) or 0 (as the images are).'
            )
        if crop.resize and self.resize not in ('', crop.resize):
            raise UserError(f'data.crop={self.crop} has its own filter, {crop.resize}; leave data.resize out, or use '
                            'another crop.')  # fmt: skip
        if crop.square and self.shape and self.shape[0] != self.shape[1]:
            raise UserError(f'data.crop={self.crop} makes squares, and data.size is {self.size}.')

    @property
    def name(self) -> str:
        """What is said of it in the name of the data: '64-center-lanczos'; '' where nothing is done to the pixels."""
        parts = []
        if self.shape:
            height, width = self.shape
            parts = [str(height) if height == width else f'{height}x{width}', self.crop, self.filter]
            parts += ['upscaled'] if self.upscale else []
        return '-'.join(parts + {0: [], 1: ['grey'], 3: ['colour']}[self.channels])

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of all that it says."""
        said = {**dataclasses.asdict(self), 'size': self.shape, 'resize': self.filter}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def flags(self) -> str:
        """The flags of `genbench data prepare` that say the same, each with a space before it."""
        found = ''
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = ','.join(map(str, value)) if isinstance(value, tuple) else str(value)
                found += f' --{field.name.replace("_", "-")}' + ('' if value is True else f'={text}')
        return found


def of(options: Any) -> Recipe:
    """The recipe in a section `data` of a config, or in the flags of a command.

    Raises:
      UserError: two of its keys do not go together.
    """
    found = Recipe(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)})
    found.check()
    return found


def defaults() -> dict[str, Any]:
    return dataclasses.asdict(Recipe())
