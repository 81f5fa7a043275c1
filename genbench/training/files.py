"""Write files so that they are either complete or absent."""

import contextlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np


def write_atomically(path: pathlib.Path, content: str | bytes) -> None:
    """Replace a file in one move, so that readers never see half of it. Creates the folder."""
    data = content.encode() if isinstance(content, str) else content
    write_bytes_atomically(path, lambda file: file.write(data))


def write_bytes_atomically(path: pathlib.Path, write: Callable[[IO[bytes]], object]) -> None:
    """Like `write_atomically`, for a function that writes to an open file. Creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    with partial.open('wb') as file:
        write(file)
    os.replace(partial, path)


@contextlib.contextmanager
def new_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an empty folder that becomes `target` at the end. An error leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f'.{target.name}.') as folder:
        partial = pathlib.Path(folder) / target.name
        partial.mkdir()
        yield partial
        partial.rename(target)


def append_line(path: pathlib.Path, text: str) -> None:
    """Append a line to a file that is read line by line. A half-written line before it stays separate."""
    with path.open('ab+') as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b'\n' else '\n' + text
        file.write(f'{text}\n'.encode())


def write_npz(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Replace an .npz file of named arrays in one move."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    write_bytes_atomically(path, lambda file: np.savez(file, **arrays))


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if it is missing or incomplete."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        return None
