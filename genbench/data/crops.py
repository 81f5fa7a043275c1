"""How a picture becomes one of the size that is wanted: crops and filters by name, on Pillow images of 8 bits.

Pillow widens its filters when it shrinks, so that none of them aliases. Every crop says no to a picture that it would
have to enlarge, unless that is asked for.
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
    """A way to bring a picture of any size to one.

    Attributes:
      make: (picture, size, filter, whether it may be enlarged) → a picture of that size.
      resize: the filter that belongs to it; '' where any may be chosen, and Lanczos is unless another is named.
      square: only square sizes are possible.
    """

    make: Callable[[Image.Image, Size, Image.Resampling, bool], Image.Image]
    resize: str = ''
    square: bool = False


def center(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """The largest rectangle of the wanted proportions in the middle, resized in one step.

    For squares, with a Lanczos filter, this is "center-crop" of Karras et al., Elucidating the Design Space of
    Diffusion-Based Generative Models, 2022.
    """
    width, height = picture.size
    share = min(width / size[1], height / size[0])
    return _cut(picture, (round(size[1] * share), round(size[0] * share)), size, resample, upscale)


def stretch(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """The whole picture, whatever that does to its proportions."""
    return _cut(picture, picture.size, size, resample, upscale)


def adm(picture: Image.Image, size: Size, resample: Image.Resampling, upscale: bool) -> Image.Image:
    """Halve with a box filter while the shorter side is at least twice the size, bring that side to the size, and keep
    the middle.

    Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, whose filter of the last step is bicubic.
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
    """The middle part `inside` (width, height) of a picture at another size."""
    _check(inside, (size[1], size[0]), upscale)
    part = picture.crop(_middle(picture.size, inside))
    return part if inside == (size[1], size[0]) else part.resize((size[1], size[0]), resample)


def _check(have: tuple[int, int], wanted: tuple[int, int], upscale: bool) -> None:
    if not upscale and (have[0] < wanted[0] or have[1] < wanted[1]):
        raise TooSmall


def _middle(whole: tuple[int, int], part: tuple[int, int]) -> Box:
    left, top = (whole[0] - part[0]) // 2, (whole[1] - part[1]) // 2
    return left, top, left + part[0], top + part[1]
