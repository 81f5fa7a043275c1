"""Decode picture files of any kind to 8-bit pictures in grey or colour, and record the conversions that this took."""

import io
import pathlib
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from genbench.data.pictures import UNREADABLE

LARGEST_FILE = 2**30  # bytes
Treated = set[str]

# The conversions of pictures, by their names in reports.
TURNED, LAID, PALETTE, DEEP, PRINT, FIRST = 'turned', 'alpha', 'palette', '16 bit', 'colour space', 'animated'
SAID = {
    TURNED: 'rotated according to their EXIF orientation',
    LAID: 'transparent, composited on white',
    PALETTE: 'converted from a palette',
    DEEP: 'reduced from 16 to 8 bits per channel',
    PRINT: 'converted from CMYK, YCbCr or Lab',
    FIRST: 'animated, reduced to the first frame',
}


class Unreadable(Exception):
    """A file that is not a picture or cannot be used. The text says why."""


def read(source: Any) -> tuple[Image.Image, bytes]:
    """A picture whose header has been read, and the bytes that it is made from.

    Args:
      source: a path, the bytes of a file, or an array (height, width, channels) of 8 or 16 bits.

    Raises:
      Unreadable: it is not a picture, or it is a decompression bomb.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source), source.tobytes()
    try:
        data = source if isinstance(source, bytes) else _contents(pathlib.Path(source))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return Image.open(io.BytesIO(data)), data
    except Image.DecompressionBombError:
        raise Unreadable('it has too many pixels (a decompression bomb)') from None
    except UNREADABLE as error:
        raise Unreadable(_reason(error)) from None


def _contents(path: pathlib.Path) -> bytes:
    if not path.is_file():  # reading a pipe would wait forever
        raise OSError('it is not a regular file')
    if path.stat().st_size > LARGEST_FILE:
        raise OSError('it has more than 1 GiB')
    return path.read_bytes()


def _of_array(values: np.ndarray) -> Image.Image:
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.dtype == np.uint16 and values.ndim == 3:  # Pillow has no mode for this
        values = np.round(values / 257).astype(np.uint8)
    try:
        return Image.fromarray(values)
    except (TypeError, ValueError) as error:
        raise Unreadable(str(error)) from None


def is_grey(picture: Image.Image) -> bool:
    """Whether the picture is grey, according to its header."""
    return picture.mode in ('1', 'L', 'LA', 'La') or picture.mode.startswith('I')


def turned_size(picture: Image.Image) -> tuple[int, int]:
    """Height and width after the EXIF orientation, which are known without decoding the picture."""
    try:
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except UNREADABLE:
        turned = False
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def plain(picture: Image.Image, channels: int) -> tuple[Image.Image, Treated]:
    """The upright picture in mode L (1 channel) or RGB (3 channels), and the conversions that this took.

    Raises:
      Unreadable: its data are damaged, or its pixels have no defined range (32 bits, floats).
    """
    done: Treated = set()
    try:
        if getattr(picture, 'is_animated', False):
            done.add(FIRST)
        if picture.format == 'PNG' and any(';16' in str(tile[3]) for tile in getattr(picture, 'tile', ())):
            done.add(DEEP)  # Pillow keeps the upper byte of colours
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            picture.load()
            found = _upright(picture, done)
            return _eight_bits(found, done, channels), done
    except UNREADABLE as error:
        raise Unreadable(_reason(error)) from None


def _upright(picture: Image.Image, done: Treated) -> Image.Image:
    try:
        orientation = picture.getexif().get(0x0112, 1)
        if orientation not in range(2, 9):
            return picture
        turned = ImageOps.exif_transpose(picture)
    except UNREADABLE:  # the picture is good even if its EXIF is damaged
        return picture
    done.add(TURNED)
    return turned


def _eight_bits(picture: Image.Image, done: Treated, channels: int) -> Image.Image:
    mode = picture.mode
    if mode.startswith('I;16') or (mode == 'I' and picture.format == 'PNG'):
        done.add(DEEP)
        picture = Image.fromarray(np.round(np.asarray(picture).astype(float) / 257).astype(np.uint8))
    elif mode in ('I', 'F'):
        raise Unreadable(f'its pixels are {"32-bit integers" if mode == "I" else "floats"}, whose range is unknown')
    elif mode in ('P', 'PA'):
        done.add(PALETTE)
    elif mode in ('CMYK', 'YCbCr', 'LAB', 'HSV'):
        done.add(PRINT)
    if picture.has_transparency_data:
        done.add(LAID)
        above = picture.convert('RGBA')
        picture = Image.alpha_composite(Image.new('RGBA', above.size, 'white'), above)
    return picture.convert('L' if channels == 1 else 'RGB')


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, Image.UnidentifiedImageError):
        return 'it is not a picture that Pillow can read'
    return lines[0][:120] if lines else type(error).__name__
