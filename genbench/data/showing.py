"""Show a prepared data set: a sheet of images, and the sizes of its splits."""

import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from genbench.data import opening, sources
from genbench.data.opening import Name
from genbench.data.spec import TEXT
from genbench.errors import UserError

ACROSS, DOWN = 12, 10  # images per row and per column of a sheet
LEAST, GAP = 64, 4  # in pixels: the smallest side, to which smaller images are enlarged, and the gap between images
FEW = 3  # how many captions to show


def show(name: Name, split: str = 'train', out: str = '') -> list[str]:
    """Write a sheet of evenly spaced images of a split, with one row per class if there are few classes. Return the
    lines that describe the set.

    Raises:
      UserError: the set is not prepared, it has no such split, or the file is not a PNG.
    """
    builder = opening.open_named(name)
    spec = sources.spec_of(builder)
    path = pathlib.Path(out or f'{spec.name}.png')
    if path.suffix.lower() != '.png':
        raise UserError(f'{path} (--out) should end in .png.')
    texts = [field for field, kind in spec.fields if kind == TEXT]
    arrays = sources.load(builder, split, ())
    classes = list(builder.info.features['label'].names) if spec.classes else []
    rows = _rows(arrays.labels, len(classes))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sheet(np.round(arrays.images * (255 / (spec.levels - 1))).astype(np.uint8), rows).save(path)
    height, width, channels = spec.shape
    lines = [f'{spec.name}: {height}×{width}, {channels} channel{"s" if channels > 1 else ""}, {spec.levels} levels']
    lines += [f'{one}: {_number(info.num_examples)}' for one, info in builder.info.splits.items()]
    counts = np.bincount(arrays.labels, minlength=len(classes))
    lines += [
        f'class {number} ({one}): {_number(counts[number])} of {split}' for number, one in enumerate(classes[:DOWN])
    ]
    lines += [f'and {len(classes) - DOWN:,} more classes'] if len(classes) > DOWN else []
    for field in texts:
        some = [record[field].decode() for record in _first(builder, split)]
        lines.append(f'{field}: ' + ' | '.join(some))
    ordered = ' Each class has a row.' if 1 < len(classes) <= DOWN else ''
    return [*lines, f'{path}: {_number(sum(map(len, rows)))} of {split}.{ordered}']


def _first(builder: object, split: str) -> list[dict]:
    source = builder.as_data_source(split)  # type: ignore[attr-defined]
    return source.__getitems__(list(range(min(FEW, len(source)))))


def _rows(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """The image numbers of each row of the sheet."""
    if 1 < classes <= DOWN:
        inside = [np.flatnonzero(labels == number) for number in range(classes)]
        return [_spaced(one, ACROSS) for one in inside if len(one)]
    chosen = _spaced(np.arange(len(labels)), ACROSS * DOWN)
    return [chosen[start : start + ACROSS] for start in range(0, len(chosen), ACROSS)]


def _spaced(numbers: np.ndarray, most: int) -> np.ndarray:
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).round().astype(int)]


def _number(images: int) -> str:
    return '1 image' if images == 1 else f'{images:,} images'


def _sheet(images: np.ndarray, rows: list[np.ndarray]) -> Image.Image:
    scale = -(-LEAST // min(images.shape[1:3]))
    height, width = (side * scale + GAP for side in images.shape[1:3])
    across = max(map(len, rows))
    sheet = Image.new('L' if images.shape[3] == 1 else 'RGB', (across * width + GAP, len(rows) * height + GAP), 'white')
    for down, row in enumerate(rows):
        for right, number in enumerate(row):
            pixels = images[number].repeat(scale, 0).repeat(scale, 1)
            tile = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            sheet.paste(tile, (right * width + GAP, down * height + GAP))
    return sheet


def counter(every: float = 2.0) -> Callable[[str], None]:
    """Rewrite a line on standard error from time to time. Without a terminal, nothing is written."""
    last = time.monotonic()

    def say(text: str) -> None:
        nonlocal last
        if sys.stderr.isatty() and time.monotonic() - last > every:
            last = time.monotonic()
            print(f'\r{text}', end='    ', file=sys.stderr, flush=True)

    return say
