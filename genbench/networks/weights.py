"""Files of published weights: whether they are the right ones, what they hold, and modules filled with them.

A file's SHA-256 is checked before anything in it is read, and names and shapes of its tensors before any value.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from genbench.errors import UserError
from genbench.networks import torch_file

_SAFETENSORS: dict[str, Any] = {
    'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16, 'I64': np.int64,
    'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'U8': np.uint8, 'BOOL': np.bool_,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file whose hash is known to be the wanted one."""

    path: pathlib.Path
    sha256: str
    published: bool
    key: tuple[str, ...] = ()  # the place of its state dict in the file, if the file has more

    @property
    def identity(self) -> str:
        """What a protocol says of them."""
        return '::'.join((self.sha256, *self.key))

    def tensors(self, choose: torch_file.Choose = list) -> dict[str, np.ndarray]:
        """The tensors in the file by name, or those that are chosen by name and shape before any value is read.

        Raises:
          UserError: the file cannot be read.
        """
        if self.path.suffix != '.safetensors':
            return torch_file.read(self.path, self.key, choose)
        if self.key:
            raise UserError(f'{self.path} is a safetensors file, which has no ::{"::".join(self.key)}.')
        return read_safetensors(self.path, choose)


def parse(text: str) -> tuple[pathlib.Path, tuple[str, ...]]:
    """FILE::KEY::KEY as a path and keys; a file whose own name is that is taken as it is."""
    name, *key = text.split('::')
    whole = pathlib.Path(text).expanduser()
    return (whole, ()) if not key or whole.is_file() else (pathlib.Path(name).expanduser(), tuple(key))


def hash_of(path: pathlib.Path, given_by: str) -> str:
    """The SHA-256 of a file.

    Args:
      given_by: the key or flag that named it, for messages.

    Raises:
      UserError: it is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # it may be a folder, or a pipe that never ends
            raise UserError(f'The weights {path} ({given_by}) are not a file.')
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise UserError(f'The weights {path} ({given_by}) cannot be read: {error.strerror}.') from None


def read_safetensors(path: pathlib.Path, choose: torch_file.Choose = list) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name: eight bytes of length, a JSON header, then the values."""
    try:
        data = memoryview(path.read_bytes())
        length = int.from_bytes(data[:8], 'little')
        header = json.loads(bytes(data[8 : 8 + length]))
        header.pop('__metadata__', None)
        found = {name: _stored(entry, data[8 + length :]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f'{path} is not a safetensors file, or is damaged ({error}).') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from None
    return {name: found[name] for name in choose({name: value.shape for name, value in found.items()})}


def _stored(entry: Any, values: memoryview) -> np.ndarray:
    """The tensor that an entry of a safetensors header describes."""
    (begin, end), kind = entry['data_offsets'], np.dtype(_SAFETENSORS[entry['dtype']])
    if min(begin, *entry['shape'], 0) < 0 or end - begin != math.prod(entry['shape']) * kind.itemsize:
        raise ValueError('the size of a tensor does not match its shape')
    return np.frombuffer(values[begin:end], kind).reshape(entry['shape'])


def checked(
    weights: Weights, shapes: Mapping[str, tuple[int, ...]], *, unused: Collection[str] = (),
    beside: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:  # fmt: skip
    """The tensors of a file as float32, which must have these names and shapes and no others.

    Args:
      unused: last parts of names that may be there and are left out.
      beside: what names begin with that may be there and are left out.

    Raises:
      UserError: a tensor is missing, has another shape, or is not expected.
    """

    def choose(held: torch_file.Shapes) -> Collection[str]:
        for name, shape in shapes.items():
            if name not in held:
                raise UserError(f'{weights.path} has no tensor {name}, so it does not belong to this network.')
            if held[name] != shape:
                raise UserError(f'{name} in {weights.path} has the shape {held[name]}, but this network needs {shape}.')
        others = [name for name in held.keys() - shapes.keys() if not name.startswith(beside)]
        if unknown := sorted(name for name in others if name.rpartition('.')[2] not in unused):
            raise UserError(f'{weights.path} has {unknown[0]}, which this network does not have.')
        return shapes.keys()

    return {name: np.asarray(value, np.float32) for name, value in weights.tensors(choose).items()}


def filled(module: Callable[[], nnx.Module], weights: Weights, **left_out: Any) -> tuple[Any, Any]:
    """(definition, parameters) of a module whose names and shapes are those of a file, with the tensors of the file.

    Args:
      left_out: what `checked` may leave out.

    Raises:
      UserError: the file is of another network.
    """
    definition, empty = abstract(module)
    shapes = {path: leaf.shape for path, leaf in by_path(empty).items()}
    return definition, fill(empty, checked(weights, shapes, **left_out).__getitem__)


def abstract(module: Callable[[], nnx.Module]) -> tuple[Any, Any]:
    """(definition, shapes of the parameters as nested dictionaries) of a module that is not made."""
    definition, state = nnx.split(nnx.eval_shape(module))
    return definition, nnx.to_pure_dict(state)


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of nested dictionaries by their dotted paths."""
    return {_dotted(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def fill(tree: Any, value: Callable[[str], np.ndarray]) -> Any:
    """Nested dictionaries like `tree` whose leaf at a dotted path is `value(path)`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: value(_dotted(path)), tree)


def _dotted(path: Sequence[Any]) -> str:
    return '.'.join(str(key.key) for key in path)
