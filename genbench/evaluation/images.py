"""Image sets from folders, arrays or prepared splits, read in batches as uint8.

The description of a set goes into the protocol. Images are hashed by their content as they are read, not by file name.
"""

import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from genbench.data import opening, pictures, sources
from genbench.data.recipe import Recipe
from genbench.errors import UserError
from genbench.evaluation import array_files
from genbench.training.sampling import to_uint8

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')
BATCH = 256


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images (n, height, width, 1 or 3), uint8 when read. All have one size, or each batch has one size.

    Attributes:
      description: what the protocol says in addition to the number and hash of the images.
      count: the largest number of images that `batches` can give.
      shape: height, width and channels; None if there are several sizes.
      batches: opens the set for one pass.
    """

    description: dict[str, Any]
    count: int
    shape: tuple[int, ...] | None
    batches: Callable[[], Iterator[np.ndarray]]
    sizes: str = ''  # if sizes differ: two of them, with their files


def folder(path: pathlib.Path, *, skip_unreadable: bool = False) -> ImageSet:
    """Read image files in a folder and its subfolders, in the order of their paths.

    Raises:
      UserError: there are no images, images have more than 8 bits, or files cannot be read and must not be skipped.
    """
    files = sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES and not os.path.isdir(file))
    if not files:
        raise UserError(f'{path} has no images ({", ".join(SUFFIXES)}).')
    found: dict[tuple[Any, ...], pathlib.Path] = {}
    for file in files:
        try:
            with pictures.opened(file) as image:
                found.setdefault((image.size, image.mode), file)
        except pictures.UNREADABLE:
            continue  # reading the pixels counts it with the truncated files
    if not found:
        raise UserError(f'None of the {len(files)} images in {path} can be read.')
    mode = _check_modes(path, found)
    sizes, modes = {size for size, _ in found}, sorted({mode for _, mode in found})
    description: dict[str, Any] = {'from': 'folder'}
    if modes != [mode]:
        description['converted'] = f'{", ".join(modes)} to {mode} by Pillow, alpha left out'
    if len(sizes) > 1:
        description['sizes'] = 'several, each image resized by itself'

    def batches() -> Iterator[np.ndarray]:
        bad: list[pathlib.Path] = []
        batch: list[np.ndarray] = []
        for file in files:
            try:
                with pictures.opened(file) as image:
                    pixels = np.asarray(image if image.mode == mode else image.convert(mode), np.uint8)
            except pictures.UNREADABLE:
                bad.append(file)
                continue
            if bad and not skip_unreadable:
                continue  # keep counting the others
            pixels = pixels if pixels.ndim == 3 else pixels[..., None]
            if batch and (len(batch) == BATCH or batch[0].shape != pixels.shape):
                yield np.stack(batch)
                batch = []
            batch.append(pixels)
        if bad and not skip_unreadable:
            names = ', '.join(str(file.relative_to(path)) for file in bad[:3]) + (', …' if len(bad) > 3 else '')
            raise UserError(f'{len(bad)} of {len(files)} images in {path} cannot be read: {names}. Repair or skip '
                            'them with --skip-unreadable.')  # fmt: skip
        if bad:
            description['unreadable_skipped'] = len(bad)
        if batch:
            yield np.stack(batch)

    channels = 1 if mode == 'L' else 3
    shape = (*sizes.pop()[::-1], channels) if len(sizes) == 1 else None
    shown = {size: file for (size, _), file in found.items()} if shape is None else {}
    told = ' and '.join(f'{file.relative_to(path)} {size[0]}×{size[1]}' for size, file in list(shown.items())[:2])
    return ImageSet(description, len(files), shape, batches, told)


def _check_modes(path: pathlib.Path, found: dict[tuple[Any, ...], pathlib.Path]) -> str:
    """The mode that all images are read in: L if all are grey, else RGB as in clean-fid."""
    for (_, mode), file in found.items():
        if mode[0] in 'IF':
            raise UserError(f'{file.relative_to(path)} in {path} has the mode {mode}, not 8 bits per channel; '
                            'save the images with 8 bits.')  # fmt: skip
    return 'L' if all(mode == 'L' for _, mode in found) else 'RGB'


def array(path: pathlib.Path) -> ImageSet:
    """Read images of an .npy file, or of an .npz file under 'images', 'arr_0' or its only name.

    Values are whole numbers in 0 … 255, or floats in [0, 1] or [−1, 1], which are rounded to 256 levels. Integers
    stored together with a value named 'levels' (as genbench writes them) are scaled to 0 … 255.
    """
    values, levels = _named(path) if array_files.is_npz(path) else (array_files.read_npy(path), None)
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[-1] not in (1, 3) or not math.prod(values.shape):
        raise UserError(f'{path} has an array of shape {values.shape}; images are (N, height, width, 1 or 3).')
    if values.dtype.kind not in 'iuf':
        raise UserError(f'{path} has values of type {values.dtype}; images are integers or floats.')
    convert, said = _to_uint8(path, values, levels)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(values), BATCH):
            yield convert(np.asarray(values[start : start + BATCH]))

    return ImageSet({'from': 'array', 'values': said}, len(values), values.shape[1:], batches)


def _named(path: pathlib.Path) -> tuple[np.ndarray, int | None]:
    """The images of an .npz file, and the number of their levels if the file gives it."""
    held = array_files.names(path)
    names = [name for name in held if name not in ('labels', 'levels', 'mu', 'sigma', 'mu_s', 'sigma_s')]
    chosen = next((name for name in ('images', 'arr_0') if name in names), names[0] if len(names) == 1 else None)
    if chosen is None:
        raise UserError(f'{path} has the arrays {", ".join(held) or "none"}; the images should be called "images".')
    found = array_files.read_npz(path, [name for name in (chosen, 'levels') if name in held])
    levels = found.get('levels')
    if levels is None:
        return found[chosen], None
    if levels.shape != () or levels.dtype.kind not in 'iu' or not 2 <= levels <= 2**16:
        raise UserError(f'levels in {path} is {levels!s:.40}; it should be an integer of at least 2.')
    return found[chosen], int(levels)


def _to_uint8(
    path: pathlib.Path, values: np.ndarray, levels: int | None
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """The conversion of an array's values to uint8, and its name."""
    if values.dtype == np.uint8 and levels is None:
        return lambda part: part, 'uint8'
    chunks = [np.asarray(values[start : start + BATCH]) for start in range(0, len(values), BATCH)]
    if values.dtype.kind == 'f' and not all(np.isfinite(chunk).all() for chunk in chunks):
        raise UserError(f'{path} contains NaN or infinity.')
    low, high = min(chunk.min() for chunk in chunks), max(chunk.max() for chunk in chunks)
    whole = values.dtype.kind in 'iu' or all((chunk == np.round(chunk)).all() for chunk in chunks)
    if levels is not None:
        if not whole or low < 0 or high >= levels:
            raise UserError(f'{path} has {values.dtype} values from {low:.4g} to {high:.4g}; images with {levels} '
                            f'levels are integers in 0 … {levels - 1}.')  # fmt: skip
        return functools.partial(_rounded, scale=255 / (levels - 1), shift=0.0), f'integers of {levels} levels'
    if whole and low >= 0 and 1 < high <= 255:
        return lambda part: part.astype(np.uint8), 'whole numbers in 0 … 255'
    if values.dtype.kind == 'f':
        for name, (least, most, scale, shift) in _RANGES.items():
            if least - 1e-6 <= low and high <= most + 1e-6:
                return functools.partial(_rounded, scale=scale, shift=shift), f'floats in {name}'
    raise UserError(f'{path} has {values.dtype} values from {low:.4g} to {high:.4g}; genbench reads '
                    'integers in 0 … 255, or floats in [0, 1] or [−1, 1].')  # fmt: skip


_RANGES = {'[0, 1]': (0, 1, 255.0, 0.0), '[−1, 1]': (-1, 1, 127.5, 127.5)}


def _rounded(part: np.ndarray, scale: float, shift: float) -> np.ndarray:
    return np.clip(np.round(part * scale + shift), 0, 255).astype(np.uint8)


def data_set(address: str, data_dir: str, recipe: Recipe | None = None) -> ImageSet:
    """'tfds:NAME:SPLIT', 'folder:DIR:SPLIT' or 'hf:NAME:SPLIT' → the images of a prepared split, scaled to 0 … 255."""
    kind, _, rest = address.partition(':')
    parts = re.fullmatch(r'(.+):([^:/\[\]]+(?:\[[^\]]*\])?)', rest)  # a slice such as train[:500] also has a colon
    if not parts:
        what, example = ('DIR', 'photos') if kind == 'folder' else ('NAME', 'cifar10')
        raise UserError(f'{address!r} should be {kind}:{what}:SPLIT, for example {kind}:{example}:train.')
    name, split = parts[1], parts[2]
    builder = opening.open_named(opening.named(f'{kind}:{name}', data_dir, recipe))
    spec, count = sources.spec_of(builder), sources.count(builder, split)

    def batches() -> Iterator[np.ndarray]:
        arrays = sources.load(builder, split)
        for start in range(0, len(arrays), BATCH):
            yield to_uint8(arrays.images[start : start + BATCH], spec)

    dataset = name if kind == 'tfds' else spec.name
    return ImageSet({'from': kind, 'dataset': dataset, 'split': split}, count, spec.shape, batches)
