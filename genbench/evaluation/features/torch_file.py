"""Tensors of .pth and .pt files, read without torch and without running what is pickled in them.

Two layouts are read: the zip archives that torch writes since 1.6, and the stream of pickles before that. The pickles
may name ordered dictionaries, storages, and the functions that make tensors of storages; any other name is refused.
"""

import collections
import dataclasses
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import IO, Any

import ml_dtypes
import numpy as np

from genbench.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older layout
PROTOCOL = 1001  # and the second

DTYPES: dict[str, Any] = {
    'DoubleStorage': np.float64, 'FloatStorage': np.float32, 'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16,
    'CharStorage': np.int8, 'ByteStorage': np.uint8, 'BoolStorage': np.bool_,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Storage:
    """A buffer that the file holds under a key: `size` values of a type."""

    kind: str
    key: str
    size: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(DTYPES[self.kind])

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and stride count values. Nothing in it is checked before it is read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


Read = Callable[[Storage], np.ndarray]  # the values of a storage, flat


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name.

    Raises:
      UserError: the file is damaged, is no file of torch, or holds anything but named tensors.
    """
    try:
        with path.open('rb') as file:
            zipped = file.read(4) == b'PK\x03\x04'
            file.seek(0)
            loaded, read_storage = _open_zip(file) if zipped else _open_stream(file)
            if not isinstance(loaded, dict):
                raise ValueError(f'it holds a {type(loaded).__name__}, not a dictionary of tensors')
            return {str(name): _array(str(name), value, read_storage) for name, value in loaded.items()}
    except UserError as error:
        raise UserError(f'{path} {error}') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from None
    except Exception as error:  # of a damaged pickle, which may fail anywhere
        raise UserError(f'{path} is no file of tensors that torch wrote, or is damaged ({error}).') from error


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


_ADMITTED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', kind): kind for kind in DTYPES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise UserError(f'asks for {module}.{name}, which is more than tensors; genbench runs nothing from a file '
                            'of weights. Save the state dict alone, or as safetensors.')  # fmt: skip
        return _ADMITTED[module, name]

    def persistent_load(self, identity: Any) -> Storage:
        word, kind, key, _, size, *view = identity
        if word != 'storage' or any(part is not None for part in view):
            raise ValueError(f'unknown kind of storage {word!r}')
        return Storage(str(kind), str(key), int(size))


def _open_zip(file: IO[bytes]) -> tuple[Any, Read]:
    archive = zipfile.ZipFile(file)
    names = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    prefix = next(name for name in names if name.endswith('data.pkl'))[: -len('data.pkl')]
    if f'{prefix}byteorder' in names and archive.read(f'{prefix}byteorder') != b'little':
        raise ValueError('its byte order is not little')

    def values(storage: Storage) -> np.ndarray:
        name = f'{prefix}data/{storage.key}'
        if names[name] != storage.nbytes:
            raise ValueError(f'storage {storage.key} has {names[name]} bytes, not {storage.nbytes}')
        return np.frombuffer(archive.read(name), storage.dtype)

    return _Unpickler(archive.open(f'{prefix}data.pkl')).load(), values


def _open_stream(file: IO[bytes]) -> tuple[Any, Read]:
    """Magic number, protocol, facts of the machine, the object, the keys of its storages, and then their values."""
    magic, protocol, machine, loaded, keys = (_Unpickler(file).load() for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError('it does not begin like one')
    if not machine['little_endian']:
        raise ValueError('its byte order is not little')
    storages = {value.storage.key: value.storage for value in loaded.values() if isinstance(value, Tensor)}
    starts = {}
    for key in keys:  # each stands behind its number of values, in eight bytes
        starts[str(key)] = file.tell() + 8
        file.seek(starts[str(key)] + storages[str(key)].nbytes)

    def values(storage: Storage) -> np.ndarray:
        file.seek(starts[storage.key] - 8)
        if int.from_bytes(file.read(8), 'little') != storage.size:
            raise ValueError(f'storage {storage.key} has another size')
        return np.frombuffer(file.read(storage.nbytes), storage.dtype)

    return loaded, values


def _array(name: str, tensor: Any, values: Read) -> np.ndarray:
    if not isinstance(tensor, Tensor):
        raise ValueError(f'{name} is a {type(tensor).__name__}, not a tensor')
    flat, count = values(tensor.storage), math.prod(tensor.shape)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
    lowest = min((tensor.offset, *tensor.shape, *tensor.stride))
    if lowest < 0 or count > len(flat) or (count and last >= len(flat)):
        raise ValueError(f'{name} reaches outside its storage')
    strides = [step * flat.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides).copy()
