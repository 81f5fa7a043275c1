"""Attributes of images that a caption can name and a sample can be measured for.

An attribute is a number of an image and two words: the second is said of an image whose number is above the median of
the train split. Whether a sample obeys is thus measured by the rule that made the captions.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

Measure = Callable[[np.ndarray], np.ndarray]  # images (n, height, width, 1) → numbers (n,)


def ink(images: np.ndarray) -> np.ndarray:
    """The sum over pixels."""
    return images.reshape(len(images), -1).astype(float).sum(1)


def brightness(images: np.ndarray) -> np.ndarray:
    """The mean of the pixels that are not 0; 0 for an empty image."""
    return ink(images) / np.maximum(area(images), 1)


def area(images: np.ndarray) -> np.ndarray:
    """How many pixels are not 0."""
    return (images.reshape(len(images), -1) > 0).sum(1).astype(float)


def slant(images: np.ndarray) -> np.ndarray:
    """How far ink moves to the right per pixel upwards: −cov(x, y) / var(y) of the ink, where y points down."""
    x, y, total = _places(images)
    dx, dy = x - _mean(x, total), y - _mean(y, total)
    return -(total * dx * dy).sum((1, 2)) / np.maximum((total * dy**2).sum((1, 2)), 1e-9)


def place(images: np.ndarray) -> np.ndarray:
    """The column of the centre of the ink, from 0 at the left."""
    x, _, total = _places(images)
    return _mean(x, total)[:, 0, 0]


def _places(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns and rows, (1, height, width) each, and the ink of each pixel (n, height, width)."""
    values = images.reshape(*images.shape[:3]).astype(float)
    rows, columns = np.mgrid[: values.shape[1], : values.shape[2]]
    return columns[None], rows[None], values


def _mean(place: np.ndarray, total: np.ndarray) -> np.ndarray:
    return (total * place).sum((1, 2), keepdims=True) / np.maximum(total.sum((1, 2), keepdims=True), 1e-9)


@dataclasses.dataclass(frozen=True)
class Template:
    """A sentence with a place in braces for the class and for each attribute.

    Attributes:
      classes: the words of the classes, by label.
      attributes: by name, how it is measured, the word at or below the median, and the word above it.
    """

    sentence: str
    classes: tuple[str, ...]
    attributes: Mapping[str, tuple[Measure, str, str]]

    def medians(self, images: np.ndarray) -> dict[str, float]:
        """The median of each attribute over images of the train split."""
        return {name: float(np.median(measure(images))) for name, (measure, _, _) in self.attributes.items()}

    def above(self, images: np.ndarray, medians: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Of each attribute, which images (n,) are above the median."""
        return {name: measure(images) > medians[name] for name, (measure, _, _) in self.attributes.items()}

    def say(self, label: int, above: Mapping[str, bool]) -> str:
        """The caption of an image of this class with these attributes."""
        words = {name: (low, high)[bool(above[name])] for name, (_, low, high) in self.attributes.items()}
        return self.sentence.format(name=self.classes[label], **words)


DIGITS = Template(
    'a {ink} {slant} {name} on the {place}',
    ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'),
    {'ink': (ink, 'thin', 'bold'), 'slant': (slant, 'upright', 'slanted'), 'place': (place, 'left', 'right')},
)
FASHION = Template(
    'a {light} {size} {name}',
    ('t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'boot'),
    {'light': (brightness, 'dark', 'bright'), 'size': (area, 'small', 'large')},
)
