"""Read the networks in EDM's pickles as data: nothing in them is imported, called or run.

NVIDIA's persistent classes pickle a network's source code together with the network, and run the code when they are
loaded. This module ignores the code. It reads only the settings, and the modules' parameters and buffers.
"""

import mmap
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from genbench.errors import UserError
from genbench.networks import pickled, torch_file

LONGEST = 500  # characters in the dotted name of a module


class Module(pickled.Built):
    """A torch module, whose attributes are its state."""

    kind: str = ''


class Network(NamedTuple):
    """A network in a pickle.

    Attributes:
      kind: the name of its class.
      options: its attributes that are numbers or texts.
      model: the name of the class of its module `model`; '' if it has none.
      arrays: its parameters and buffers, by dotted name.
    """

    kind: str
    options: dict[str, Any]
    model: str
    arrays: dict[str, np.ndarray]


def read(path: pathlib.Path, key: str = 'ema') -> Network:
    """The network under a key of the pickled dictionary.

    Raises:
      UserError: the file is damaged, or holds no such network.
    """
    storages: dict[str, np.ndarray] = {}
    known: dict[int, tuple[bytes, torch_file.Storage]] = {}  # by stream, since a pickle may use one several times

    def stored(stream: Any = None, *_: Any) -> torch_file.Storage:
        if not isinstance(stream, bytes):
            raise ValueError('it has a storage that is not bytes')
        if id(stream) not in known:
            storage, values = torch_file.lone_storage(stream)
            name = str(len(storages))
            storages[name] = values
            known[id(stream)] = stream, torch_file.Storage(storage.kind, name, storage.size)
        return known[id(stream)][1]

    calls = {
        **torch_file.CALLS,
        ('torch.storage', '_load_from_bytes'): stored,
        ('torch_utils.persistence', '_reconstruct_persistent_obj'): _module,
        ('torch.nn.modules.container', 'ModuleDict'): lambda *_: Module(),
        ('torch.nn.modules.container', 'ModuleList'): lambda *_: Module(),
        ('dnnlib.util', 'EasyDict'): pickled.ordered_dict,
    }
    try:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            loaded = pickled.load(memory, calls, _refused)
        found = loaded.get(key) if isinstance(loaded, dict) else None
        if not isinstance(found, Module):
            raise UserError(f'{path} has no network under {key!r}, as a pickle of EDM has.')
        tensors = dict(_tensors(found, set()))
        arrays = {name: torch_file.view(storages[one.storage.key], one) for name, one in tensors.items()}
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from None
    except (ValueError, EOFError) as error:
        raise UserError(f'{path} is not a pickle of a network, or is damaged ({error}).') from error
    plain = {name: value for name, value in _attributes(found).items() if isinstance(value, int | float | str)}
    model = dict(_held(_attributes(found), '_modules')).get('model')
    return Network(found.kind, plain, model.kind if isinstance(model, Module) else '', arrays)


def _refused(identity: Any) -> Any:
    raise ValueError('it refers to objects in another file')


def _module(meta: Any = None, *_: Any) -> Module:
    if not isinstance(meta, dict) or not isinstance(meta.get('class_name'), str):
        raise ValueError('it has a persistent object without a class')
    module = Module(meta.get('state'))
    module.kind = meta['class_name']
    return module


def _attributes(module: Module) -> Mapping[str, Any]:
    return module.state if isinstance(module.state, dict) else {}


def _tensors(module: Module, seen: set[int], prefix: str = '') -> Iterator[tuple[str, torch_file.Tensor]]:
    if id(module) in seen:
        raise ValueError('its modules contain each other')
    if len(prefix) > LONGEST:
        raise ValueError('its modules have impossible names')
    seen.add(id(module))
    state = _attributes(module)
    for part in ('_parameters', '_buffers'):
        for name, value in _held(state, part):
            if isinstance(value, torch_file.Tensor):
                yield f'{prefix}{name}', value
    for name, value in _held(state, '_modules'):
        if isinstance(value, Module):
            yield from _tensors(value, seen, f'{prefix}{name}.')


def _held(state: Mapping[str, Any], part: str) -> list[tuple[Any, Any]]:
    held = state.get(part)
    return list(held.items()) if isinstance(held, dict) else []
