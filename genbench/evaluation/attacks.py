"""What happens to pictures in transit, and may remove a watermark: NAME or NAME and a number, such as jpeg25.

Pillow does all but `regenerate`, for which a model noises and denoises the images (`evaluation.marking`).
"""

import io
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from genbench.data import pictures
from genbench.errors import UserError, did_you_mean

NONE, REGENERATE = 'none', 'regenerate'


class Attack(NamedTuple):
    """One kind of attack.

    Attributes:
      apply: (picture, number, generator) → a picture of the same size.
        None: a model does it.
      number: the default. `low` and `high` are limits.
    """

    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image] | None
    number: float
    low: float
    high: float


def _resize(picture: Image.Image, percent: float, _: np.random.Generator) -> Image.Image:
    """Shrink the sides to this percentage, and enlarge the result."""
    width, height = (max(1, round(side * percent / 100)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.BICUBIC)


def _crop(picture: Image.Image, percent: float, draw: np.random.Generator) -> Image.Image:
    """Keep this percentage of the area at a random place, and enlarge it to the old size."""
    width, height = (max(1, round(side * (percent / 100) ** 0.5)) for side in picture.size)
    left, top = (int(draw.integers(side - part + 1)) for side, part in zip(picture.size, (width, height), strict=True))
    kept = picture.crop((left, top, left + width, top + height))
    return kept.resize(picture.size, Image.Resampling.BICUBIC)


def _noise(picture: Image.Image, percent: float, draw: np.random.Generator) -> Image.Image:
    """Add normal noise. Its deviation is this percentage of the distance from black to white."""
    shades = np.asarray(picture, float)
    noisy = np.round(shades + 2.55 * percent * draw.standard_normal(shades.shape))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _blur(picture: Image.Image, deviation: float, _: np.random.Generator) -> Image.Image:
    """Pillow's approximation of a Gaussian filter with this deviation in pixels."""
    return picture.filter(ImageFilter.GaussianBlur(deviation))


def _jpeg(picture: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=round(quality))
    return Image.open(file)


ATTACKS = {
    'resize': Attack(_resize, 50, 1, 100),
    'crop': Attack(_crop, 75, 1, 100),
    'noise': Attack(_noise, 10, 0, 100),
    'blur': Attack(_blur, 1, 0, 64),
    'jpeg': Attack(_jpeg, 25, 1, 100),
    REGENERATE: Attack(None, 20, 1, 99),  # percent of a sampler's steps
}


def check(text: str) -> tuple[str, float]:
    """The name and the number of an attack. Raise a UserError that says what they can be."""
    found = re.fullmatch(r'([a-z]+)(\d+(?:\.\d+)?)?', text[:40])
    if not found or found[1] not in ATTACKS:
        raise UserError(f'There is no attack {text[:40]!r}; use {", ".join(ATTACKS)}. {did_you_mean(text, ATTACKS)}')
    kind = ATTACKS[found[1]]
    number = float(found[2]) if found[2] else kind.number
    if not kind.low <= number <= kind.high:
        raise UserError(f'The number of the attack {text} should be from {kind.low:g} to {kind.high:g}.')
    return found[1], number


def attacked(images: np.ndarray, text: str, seed: int) -> np.ndarray:
    """uint8 images (n, height, width, 1 or 3) after an attack that `check` accepted, in their size."""
    name, number = check(text)
    apply, draws, results = ATTACKS[name].apply, np.random.default_rng(seed).spawn(len(images)), []
    assert apply is not None, 'a model does it'
    for image, draw in zip(images, draws, strict=True):
        picture = apply(pictures.of_array(image), number, draw)
        results.append(np.asarray(picture).reshape(image.shape))
    return np.stack(results)
