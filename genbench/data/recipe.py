"""The recipe of a data set: the keys of `data` that decide which images it has and what their pixels are."""

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
    """How a data set is prepared. The same images prepared with another recipe are another data set.

    Attributes:
      size: () if images already have the same size; one number for squares; or height and width.
      crop: how images of other sizes are brought to this size, a name in `crops.CROPS`.
      resize: the filter, a name in `crops.FILTERS`; '' is the crop's own filter or Lanczos.
      upscale: whether images smaller than the size are enlarged. Otherwise they are left out.
      channels: 1 for grey, 3 for colour; 0 is grey if every image is grey.
      labels: '' for class folders or else the field `label`; the name of another field; or 'none'.
      test_share: the fraction of images that the hash of their name puts into `test` if there is no folder for it.
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
        """Height and width; None if images keep their size."""
        return (self.size[0], self.size[-1]) if self.size else None

    @property
    def filter(self) -> str:
        """The name of the filter that is used."""
        return self.resize or crops.CROPS[self.crop].resize or 'lanczos'

    def check(self) -> None:
        """Raise a UserError if a setting is invalid or two settings contradict each other."""
        for key, allowed in RANGES.items():
            allowed.check(key, getattr(self, key.removeprefix('data.')))
        crop = crops.CROPS[self.crop]
        if len(self.size) > 2:
            raise UserError(f'data.size is {self.size}; give one number for squares, or a height and a width.')
        if not self.size and (self.crop, self.resize, self.upscale) != ('center', '', False):
            raise UserError('data.crop, data.resize and data.upscale have no effect without data.size; set it.')
        if self.channels not in (0, 1, 3):
            raise UserError(
                f'data.channels is {self.channels}; it can be 1 (grey), 3 (colour) or 0 (that of the images).'
            )
        if crop.resize and self.resize not in ('', crop.resize):
            raise UserError(f'data.crop={self.crop} always uses the filter {crop.resize}; remove data.resize, or use '
                            'another crop.')  # fmt: skip
        if crop.square and self.shape and self.shape[0] != self.shape[1]:
            raise UserError(f'data.crop={self.crop} makes squares, but data.size is {self.size}.')

    @property
    def name(self) -> str:
        """The recipe's part of the data set's name, such as '64-center-lanczos'; '' if it leaves pixels unchanged."""
        parts = []
        if self.shape:
            height, width = self.shape
            parts = [str(height) if height == width else f'{height}x{width}', self.crop, self.filter]
            parts += ['upscaled'] if self.upscale else []
        return '-'.join(parts + {0: [], 1: ['grey'], 3: ['colour']}[self.channels])

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of a hash of all settings."""
        said = {**dataclasses.asdict(self), 'size': self.shape, 'resize': self.filter}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def flags(self) -> str:
        """The equivalent flags of `genbench data prepare`, each preceded by a space."""
        found = ''
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = ','.join(map(str, value)) if isinstance(value, tuple) else str(value)
                found += f' --{field.name.replace("_", "-")}' + ('' if value is True else f'={text}')
        return found


def of(options: Any) -> Recipe:
    """The recipe in the section `data` of a config or in the flags of a command.

    Raises:
      UserError: two of its keys contradict each other.
    """
    found = Recipe(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)})
    found.check()
    return found


def defaults() -> dict[str, Any]:
    return dataclasses.asdict(Recipe())
