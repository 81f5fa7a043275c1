"""Read arrays from .npy and .npz files. Sizes are checked before memory is allocated; damage is one clear error."""

import contextlib
import math
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import IO, Any

import numpy as np

from genbench.errors import UserError

Header = tuple[tuple[int, ...], bool, np.dtype]  # shape, whether it is in Fortran order, type
# The errors that numpy, zipfile and zlib raise for a damaged or malicious file.
_DAMAGED = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
            OverflowError, MemoryError, tokenize.TokenError)  # fmt: skip


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        lines = str(error).splitlines()
        raise UserError(f'{path} cannot be read as an array: {lines[0] if lines else type(error).__name__}.') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read as an array: {error.strerror or error}.') from None


def is_npz(path: pathlib.Path) -> bool:
    """Whether a file begins as an .npz does; False if it is not a file."""
    if not os.path.isfile(path):  # not Path.is_file, which raises if a name is too long
        return False
    with _explained(path), path.open('rb') as file:
        return file.read(2) == b'PK'


def read_npy(path: pathlib.Path) -> np.ndarray:
    """Return the array of an .npy file, memory-mapped rather than read."""
    _check_is_file(path)
    with _explained(path):
        return np.load(path, mmap_mode='r', allow_pickle=False)


def names(path: pathlib.Path) -> list[str]:
    """Return the names of the arrays in an .npz file."""
    with _archive(path) as archive:
        return [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]


def shapes(path: pathlib.Path, wanted: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays in an .npz file without reading their values."""
    with _archive(path) as archive:
        found = {}
        for name in wanted:
            with archive.open(f'{name}.npy') as file:
                found[name] = _header(file)[0]
        return found


def read_npz(path: pathlib.Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Return arrays of an .npz file by name."""
    with _archive(path) as archive:
        return {name: _read(archive, name) for name in wanted}


@contextlib.contextmanager
def _archive(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    _check_is_file(path)
    with _explained(path), zipfile.ZipFile(path) as archive:
        yield archive


def _check_is_file(path: pathlib.Path) -> None:
    if not os.path.isfile(path):
        raise UserError(f'{path} is not a file.')


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f'{name}.npy')
    with archive.open(member) as file:
        shape, columns_first, kind = _header(file)
        held, needed = member.file_size - file.tell(), math.prod(shape) * kind.itemsize
        if held != needed:
            raise ValueError(f'{name} has {held} bytes, but its shape {shape} needs {needed}')
        values = np.frombuffer(file.read(), kind)
    return values.reshape(shape, order='F' if columns_first else 'C')


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    readers: dict[Any, Any] = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }  # fmt: skip
    if version not in readers:
        raise ValueError(f'it has the unknown version {version}')
    shape, columns_first, kind = readers[version](file)
    if kind.hasobject:
        raise ValueError('it contains Python objects')
    return shape, columns_first, kind
