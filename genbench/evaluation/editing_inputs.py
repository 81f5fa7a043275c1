"""The images that a user wants edited."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from genbench.data import pictures
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import images

GRID, REPORT = 'grid.png', 'edit.json'  # the other files in the folder of results
TAKEN = (GRID.removesuffix('.png'),)  # names that no result may have


class Asked(Protocol):
    """What the flags say about inputs."""

    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def resize(self) -> bool: ...
    @property
    def data_dir(self) -> str: ...


def read(asked: Asked, spec: DataSpec, shows: str = '') -> tuple[list[str], np.ndarray]:
    """The names of the inputs, each different, and the inputs as integer images (n, …) of this size.

    Args:
      shows: why the size is another than that of the model's images, for messages.

    Raises:
      UserError: an input does not exist, cannot be read or has another size.
    """
    found: list[tuple[str, np.ndarray]] = []
    for address in asked.inputs:
        if re.match(r'(tfds|folder|hf):', address) and not os.path.exists(address):
            found += _of_data_set(address, asked.data_dir, spec)
        elif os.path.isdir(address):
            found += _of_folder(pathlib.Path(address), spec, asked.resize, shows)
        else:
            found.append((pathlib.Path(address).stem, one(address, spec, asked.resize, shows)))
    names: list[str] = []
    for name, _ in found:
        taken = {*names, *TAKEN}
        names.append(name if name not in taken else next(
            text for number in range(2, len(found) + 3) if (text := f'{name}_{number}') not in taken
        ))  # fmt: skip
    return names, np.stack([image for _, image in found])


def one(file: str, spec: DataSpec, resize: bool, shows: str = '') -> np.ndarray:
    """One file as an integer image; see `pictures.image`. Messages say what helps."""
    if not os.path.exists(file):
        raise UserError(f'There is no file {file or "without a name"}.')
    try:
        return pictures.image(file, spec, resize)
    except UserError as error:
        hint = ''
        if 'pixels; the images of' in str(error):
            hint = f' That is the size that {shows}; --degrade takes whole images and degrades them first.' if shows \
                else ' Add --resize to change its size.'  # fmt: skip
        raise UserError(f'{error}{hint}') from None


def _of_folder(folder: pathlib.Path, spec: DataSpec, resize: bool, shows: str) -> list[tuple[str, np.ndarray]]:
    others = {GRID} if (folder / REPORT).exists() else set()  # results of an edit may be edited again
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in images.SUFFIXES and file.is_file()
                   and file.name not in others)  # fmt: skip
    if not files:
        raise UserError(f'{folder} has no images ({", ".join(images.SUFFIXES)}).')
    bad = []
    for file in files:
        try:
            with pictures.opened(file) as picture:
                picture.load()
        except pictures.UNREADABLE:
            bad.append(file.name)
    if bad:
        names = ', '.join(bad[:3]) + (', …' if len(bad) > 3 else '')
        raise UserError(f'{len(bad)} of {len(files)} images in {folder} cannot be read: {names}. Repair or remove '
                        'them.')  # fmt: skip
    return [(file.stem, one(str(file), spec, resize, shows)) for file in files]


def _of_data_set(address: str, data_dir: str, spec: DataSpec) -> list[tuple[str, np.ndarray]]:
    data = images.data_set(address, data_dir)
    if data.shape != spec.shape:
        raise UserError(f'The images of {address} have the shape {data.shape}; they should have {spec.shape}.')
    shades = np.concatenate(list(data.batches()))
    levels = np.round(shades * ((spec.levels - 1) / 255)).astype(np.int32)
    return [(f'{number:04d}', image) for number, image in enumerate(levels)]
