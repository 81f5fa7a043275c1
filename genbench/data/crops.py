"""Bring a picture to the desired size: crops and filters by name, on 8-bit Pillow images.

Pillow widens its filters when it shrinks a picture, so none of them aliases. Every crop rejects pictures that it would
have to enlarge, unless enlarging is allowed.
"""

import dataclasses
from collections.abc import Callable, Mapping

from PIL import Image

FILTERS: Mapping[str, Image.Resampling] = {
    'lanczos': Image.Resampling.LANCZOS,
    'bicubic': Image.Resampling.BICUBIC,
    'bilinear': Image.Resampling.BILINEAR,
    'hamming': Image.Resampling.HAMMING,
    'box': Image.Resampling.BOX,
    'nearest': Image.Resampling.NEAREST,
}
Size = tuple[int, int]  # height, width
Box = tuple[int, int, int, int]  # left, top, right, bottom


class TooSmall(Exception):
    """The picture would have to be enlarged."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """A way to bring pictures of any size to the same size.

    Attributes:
      make: (picture, size, filter, whether the picture may be enlarged) → a picture of that size.
      resize: the filter that the crop prescribes; '' if any filter may be chosen, with Lanczos as the default.
      square: only square sizes are possible.
    """

    make: Callable[[Image.Image, Size, Image.Resampling, bool], Image.Image]
    resize: str = ''
    square: bool = False


def center(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """The largest central rectangle with the desired proportions, resized in one step.

    For squares and a Lanczos filter, this is the "center-crop" of Karras et al., Elucidating the Design Space of
    Diffusion-Based Generative Models, 2022.
    """
    width, height = picture.size
    share = min(width / size[1], height / size[0])
    return _cut(picture, (round(size[1] * share), round(size[0] * share)), size, resample, upscale)


def stretch(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """The whole picture, resized regardless of its proportions."""
    return _cut(picture, picture.size, size, resample, upscale)


def adm(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """Halve the picture with a box filter while its shorter side is at least twice the size, resize that side to the
    size, and keep the middle.

    This follows Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, with a bicubic last step.
    """
    side = size[0]
    _check(picture.size, (side, side), upscale)
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    share = side / min(picture.size)
    picture = picture.resize((round(picture.width * share), round(picture.height * share)), resample)
    return picture.crop(_middle(picture.size, (side, side)))


CROPS: Mapping[str, Crop] = {
    'center': Crop(center),
    'stretch': Crop(stretch),
    'adm': Crop(adm, resize='bicubic', square=True),
    'edm': Crop(center, resize='lanczos', square=True),
}


def _cut(picture: Image.Image, inside: Size, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """Cut the central part `inside` (width, height) out of a picture and resize it."""
    _check(inside, (size[1], size[0]), upscale)
    part = picture.crop(_middle(picture.size, inside))
    return part if inside == (size[1], size[0]) else part.resize((size[1], size[0]), resample)


def _check(have: tuple[int, int], wanted: tuple[int, int], upscale: bool) -> None:
    if not upscale and (have[0] < wanted[0] or have[1] < wanted[1]):
        raise TooSmall


def _middle(whole: tuple[int, int], part: tuple[int, int]) -> Box:
    left, top = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return left, top, left + part[0], top + part[1]
