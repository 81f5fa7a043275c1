"""Tensors of .pth and .pt files, read without torch and without running what is pickled in them.

Two layouts are read: the zip archives that torch writes since 1.6, and the stream of pickles before that. Their pickles
are read as data (see `pickled`); names and shapes are known before any value is read, each storage is read once, and
nothing is unpacked that is larger than what its tensors show of it.
"""

import dataclasses
import io
import math
import mmap
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO, Any

import ml_dtypes
import numpy as np

from genbench.errors import UserError
from genbench.networks import pickled

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older layout
PROTOCOL = 1001  # and the second
PICKLE_BYTES = 2**26  # a pickle does not contain the values of tensors, so it is never this long
LARGEST, DIMENSIONS = 2**48, 64  # the largest size, and the most dimensions that numpy allows

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
    """A view of a storage; offset and stride count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """One past the last value of the storage that it reaches."""
        return self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) + 1


class _Refused(Exception):
    """A whole file that holds something else than it should; the sentence continues its path."""


Shapes = Mapping[str, tuple[int, ...]]
Choose = Callable[[Shapes], Collection[str]]  # the tensors that are wanted, among those in a file
Read = Callable[[Storage, int], np.ndarray]  # (a storage, how many values its tensors have) → its values, flat


def read(path: pathlib.Path, key: Sequence[str] = (), choose: Choose = list) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, read-only; those that share a storage in the file share it in memory.

    Args:
      key: where the state dict lies in a file that holds others beside it: ('state_dict',). A list of tensors there
        is one under '0', '1', ….
      choose: which tensors to read the values of; it may raise where names and shapes are not those that it needs.

    Raises:
      UserError: the file is damaged, is no file of torch, or holds anything but named tensors.
    """
    try:
        with path.open('rb') as file:
            zipped = file.read(4) == b'PK\x03\x04'
            file.seek(0)
            loaded, read_storage = _open_zip(file) if zipped else _open_stream(file)
            tensors = _at(loaded, key)
            wanted = choose({name: tensor.shape for name, tensor in tensors.items()})
            return _arrays({name: tensors[name] for name in wanted}, read_storage)
    except _Refused as error:
        raise UserError(f'{path} {error}') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        # zipfile also fails on an unknown compression and on a password
        raise UserError(f'{path} is not a torch file of tensors, or is damaged ({error}).') from error


def lone_storage(stream: bytes) -> tuple[Storage, np.ndarray]:
    """A storage that torch wrote by itself, in the older layout, as it does where tensors lie in other pickles."""
    file = io.BytesIO(stream)
    storage, values = _read_stream(file, file, len(stream))
    if not isinstance(storage, Storage):
        raise ValueError('it has something else in place of a storage')
    return storage, values(storage, storage.size)


def _rebuild_tensor(storage: Any = None, offset: Any = None, shape: Any = None, stride: Any = None, *_: Any) -> Tensor:
    if not (isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(stride, tuple)):
        raise ValueError('it has a tensor that is not a view of a storage')
    small = all(type(number) is int and 0 <= number < LARGEST for number in (offset, *shape, *stride))
    if not small or len(shape) != len(stride) or len(shape) > DIMENSIONS:
        raise ValueError('it has a tensor with an impossible offset, shape or stride')
    tensor = Tensor(storage, offset, shape, stride)
    if tensor.size and (tensor.end > storage.size or tensor.size > storage.size):
        raise ValueError(f'a tensor extends beyond its storage {storage.key}')
    return tensor


def _rebuild_parameter(tensor: Any = None, *_: Any) -> Any:
    return tensor


CALLS: dict[tuple[str, str], pickled.Call] = {
    ('collections', 'OrderedDict'): pickled.ordered_dict,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
}


class _Storages(dict[str, Storage]):
    """The storages that a pickle names, by their keys."""

    def add(self, identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) < 5:
            raise ValueError('a storage is missing')
        word, kind, key, _, size, *view = identity
        known = isinstance(kind, pickled.Global) and kind.module == 'torch' and kind.name in DTYPES
        if word != 'storage' or not known or any(part is not None for part in view):
            raise ValueError('it has an unknown kind of storage')
        if not isinstance(key, str | int) or type(size) is not int or not 0 <= size < LARGEST:
            raise ValueError('it has a storage without a name or a size')
        storage = Storage(kind.name, str(key), size)
        if self.setdefault(storage.key, storage) != storage:
            raise ValueError(f'it describes storage {_short(key)} in two ways')
        return storage


def _open_zip(file: IO[bytes]) -> tuple[Any, Read]:
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    prefix = next((name for name in members if name.endswith('data.pkl')), 'data.pkl')[: -len('data.pkl')]
    order, description = members.get(f'{prefix}byteorder'), members.get(f'{prefix}data.pkl')
    if description is None or description.file_size > PICKLE_BYTES:
        raise ValueError('it has no data.pkl' if description is None else 'its data.pkl is too large for a pickle')
    if order is not None and (order.file_size > 8 or archive.read(order) != b'little'):
        raise ValueError('its byte order is not little-endian')

    def values(storage: Storage, seen: int) -> np.ndarray:
        member = members.get(f'{prefix}data/{storage.key}')
        if member is None:
            raise ValueError(f'storage {storage.key} is missing')
        if member.file_size != storage.nbytes:
            raise ValueError(f'storage {storage.key} has {member.file_size} bytes, not {storage.nbytes}')
        if member.compress_type != zipfile.ZIP_STORED and seen < storage.size:
            raise ValueError(f'storage {storage.key} would unpack to {storage.nbytes} bytes, but its tensors '
                             f'use only {seen * storage.dtype.itemsize}')  # fmt: skip
        return np.frombuffer(archive.read(member), storage.dtype)

    return pickled.load(archive.read(description), CALLS, _Storages().add), values


def _open_stream(file: IO[bytes]) -> tuple[Any, Read]:
    """Magic number, protocol, facts of the machine, the object, the keys of its storages, and then their values."""
    size = file.seek(0, 2)
    if not size:
        raise ValueError('it is empty')
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:  # a map never reads past the end
        return _read_stream(memory, file, size)


def _read_stream(memory: mmap.mmap | io.BytesIO, file: IO[bytes], size: int) -> tuple[Any, Read]:
    storages = _Storages()
    magic, protocol, machine, loaded, keys = (pickled.load(memory, CALLS, storages.add) for _ in range(5))
    place = memory.tell()
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError('it does not begin like a torch file')
    if not isinstance(machine, dict) or machine.get('little_endian') is not True:
        raise ValueError('its byte order is not little-endian')
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise ValueError('it does not list its storages')
    starts = {}
    for key in map(str, keys):  # eight bytes with its number of values precede each storage
        starts[key] = place + 8
        place += 8 + (storages[key].nbytes if key in storages else size)  # an unknown storage hides those behind it

    def values(storage: Storage, seen: int) -> np.ndarray:
        start = starts.get(storage.key, size)
        file.seek(start - 8)
        if start + storage.nbytes > size or int.from_bytes(file.read(8), 'little') != storage.size:
            raise ValueError(f'storage {storage.key} has another size')
        return np.frombuffer(file.read(storage.nbytes), storage.dtype)

    return loaded, values


def _at(loaded: Any, key: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the dictionary under a key, by name."""
    for depth, part in enumerate(key):
        if not isinstance(loaded, dict) or part not in loaded:
            there = ', '.join(map(_short, list(loaded)[:5])) if isinstance(loaded, dict) else type(loaded).__name__
            raise _Refused(f'has nothing under {"::".join(key[: depth + 1])}; it has: {there or "nothing"}.')
        loaded = loaded[part]
    if key and isinstance(loaded, list):
        loaded = {str(index): one for index, one in enumerate(loaded)}
    if not isinstance(loaded, dict):
        raise _no_tensors('it', loaded)
    if not loaded:
        raise ValueError('its dictionary is empty')
    others = {name: value for name, value in loaded.items() if not _is_named_tensor(name, value)}
    for name, value in others.items():
        if isinstance(value, dict) and any(_is_named_tensor(*item) for item in value.items()):
            raise _Refused(f'has several dictionaries of tensors; choose one, for example '
                           f'FILE::{"::".join((*key, _short(name)))}.')  # fmt: skip
    for name, value in others.items():
        raise _no_tensors(_short(name), value)
    return loaded


def _no_tensors(name: str, value: Any) -> Exception:
    if isinstance(value, pickled.Unknown | pickled.Global):
        return _Refused(f'needs {_short(value)}, which is not a tensor; genbench never runs code from a file of '
                        'weights. Save the state dict alone, or as safetensors.')  # fmt: skip
    return ValueError(f'{name} is a {type(value).__name__}, neither a tensor nor a dictionary of tensors')


def _is_named_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _short(word: object) -> str:
    return f'{word!s:.80}'


def _arrays(tensors: dict[str, Tensor], read_storage: Read) -> dict[str, np.ndarray]:
    sizes: dict[Storage, int] = {}
    for tensor in tensors.values():
        sizes[tensor.storage] = sizes.get(tensor.storage, 0) + tensor.size
    flat = {storage: read_storage(storage, size) for storage, size in sizes.items()}
    return {name: view(flat[tensor.storage], tensor) for name, tensor in tensors.items()}


def view(flat: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The tensor, of the values of its storage."""
    if not tensor.size:
        return np.zeros(tensor.shape, flat.dtype)
    strides = [step * flat.itemsize if n > 1 else 0 for n, step in zip(tensor.shape, tensor.stride, strict=True)]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
