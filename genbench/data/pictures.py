"""Users' picture files, which may contain anything."""

import os
import pathlib
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from genbench.data.spec import DataSpec
from genbench.errors import UserError

# The errors that Pillow raises, depending on the format, for a file that is damaged or too large.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, MemoryError,
              struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip


def opened(file: str | pathlib.Path) -> Image.Image:
    """A picture whose header has been read.

    Raises:
      UNREADABLE: there is no such file, or it is not a picture.
    """
    if not os.path.isfile(file):  # reading a pipe would wait forever
        raise OSError('not a file')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        return Image.open(file)


def of_array(image: np.ndarray) -> Image.Image:
    """The picture of a uint8 image (height, width, 1 or 3)."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def image(file: str, spec: 'DataSpec', resize: bool = False) -> np.ndarray:
    """A picture with 8 bits per channel, as an integer image of the data set, (height, width, channels).

    Args:
      resize: change a picture of another size to that of the data set, whatever its proportions (Lanczos).

    Raises:
      UserError: the file cannot be read, or its picture has another size or more bits.
    """
    height, width, channels = spec.shape
    try:
        with opened(file) as picture:
            if picture.size != (width, height) and not resize:
                raise UserError(f'{file} has {picture.width}×{picture.height} pixels; the images of {spec.name} have '
                                f'{width}×{height}.')  # fmt: skip
            if picture.mode[0] in 'IF':
                raise UserError(f'{file} has more than 8 bits a channel; save it with 8 bits.')
            converted = picture.convert('L' if channels == 1 else 'RGB')
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.LANCZOS)
            shades = np.asarray(converted)
    except UNREADABLE:
        raise UserError(f'{file or "An empty name"} cannot be read as a picture.') from None
    return np.round(shades.reshape(spec.shape) * ((spec.levels - 1) / 255)).astype(np.int32)
