"""Files that are whole or not there."""

import os
import pathlib
from collections.abc import Callable
from typing import IO


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replace a file in one move, so that readers never see half of it."""
    write_bytes_atomically(path, lambda file: file.write(text.encode()))


def write_bytes_atomically(path: pathlib.Path, write: Callable[[IO[bytes]], object]) -> None:
    """Like `write_atomically`, for a function that writes to an open file; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    with partial.open('wb') as file:
        write(file)
    os.replace(partial, path)
