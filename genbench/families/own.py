"""Import the user's own modules, which register families, from wherever they are.

A config names a module as Python imports it, such as `my_family` or `my_project.families`. If the module is found near
the config file or in the working directory, the resolved config puts its folder before the name: FOLDER:NAME. A run's
snapshot thus records where the module is, and every process that reads the snapshot finds it from any working
directory.
"""

import hashlib
import importlib
import pathlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from genbench import families, overrides
from genbench.errors import UserError
from genbench.families.registry import registered
from genbench.ranges import TEXTS, said, shown

ABOVE = 5  # how many folders above a file to search for modules


def names(modules: Sequence[str]) -> tuple[str, ...]:
    """The names of modules without their folders."""
    return tuple(module.rpartition(':')[2] for module in modules)


def load(modules: Any, near: pathlib.Path | None = None) -> tuple[str, ...]:
    """Import modules, so that their families are registered.

    Args:
      modules: the value of `family.modules` in a config, or the text of an override. Each is NAME or FOLDER:NAME.
      near: a config file. Its folder and the folders above it are searched before the working directory.

    Returns:
      The modules with the folders in which they were found.

    Raises:
      UserError: there is no such module, its code fails, or its name is already taken.
    """
    key = 'family.modules'
    listed = overrides.parse(key, modules, ()) if isinstance(modules, str) else modules
    return tuple(_load(module, near) for module in overrides.coerce(key, listed, (), TEXTS))


def _load(text: str, near: pathlib.Path | None) -> str:
    stated, _, name = text.rpartition(':')
    if not all(part.isidentifier() for part in name.split('.')):
        raise UserError(f'family.modules has {shown(text)}; write a module as Python imports it, such as my_family or '
                        'my_project.families.')  # fmt: skip
    above = list(near.absolute().parents)[:ABOVE] if near is not None else []
    places = [*([pathlib.Path(stated)] if stated else []), *above, pathlib.Path.cwd()]
    folder = next((place for place in places if _lies_in(place, name)), None)
    if folder is not None and str(folder) not in sys.path:
        sys.path.append(str(folder))
    _import(name, folder, places)
    return name if folder is None else f'{folder}:{name}'


def _lies_in(folder: pathlib.Path, name: str) -> bool:
    path = folder.joinpath(*name.split('.'))
    return path.with_suffix('.py').is_file() or (path / '__init__.py').is_file()


def _import(name: str, folder: pathlib.Path | None, places: Sequence[pathlib.Path]) -> None:
    importlib.invalidate_caches()  # the module may be new
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except UserError as error:
        raise UserError(f'The module {name} (family.modules) cannot be imported: {error}') from None
    except BaseException as error:  # the user's code may raise anything, not only an Exception
        if folder is None and isinstance(error, ModuleNotFoundError) and name.startswith(error.name or '-'):
            where = ', '.join(dict.fromkeys(map(str, places)))
            raise UserError(f'The module {name} (family.modules) is neither installed nor in '
                            f'{where}. Start genbench in the folder of the module.') from None  # fmt: skip
        raise UserError(f'The module {name} (family.modules) cannot be imported: {said(error)}.') from None
    found = getattr(module, '__file__', None)
    if folder is not None and (not found or folder.resolve() not in pathlib.Path(found).resolve().parents):
        raise UserError(f'{folder} has a module {name} (family.modules), but Python already has another one, '
                        f'{found}; rename yours.')  # fmt: skip
    used = {one.name for one in pkgutil.iter_modules(families.__path__)}
    for family, cls in registered().items():
        if family in used and cls.__module__.split('.')[: name.count('.') + 1] == name.split('.'):
            raise UserError(f'{cls.__module__} registers a family {family!r}, but genbench has one of that name; '
                            'rename yours.')  # fmt: skip


def digests(modules: Sequence[str]) -> dict[str, str]:
    """Map each module to twelve digits of a hash of its source. The hash of a package covers all of its modules.

    It does not cover what a module imports from elsewhere.
    """
    return {name: _digest(name) for name in names(modules)}


def _digest(name: str) -> str:
    outermost = sys.modules[name.partition('.')[0]].__file__
    package = outermost is not None and pathlib.Path(outermost).name == '__init__.py'
    one = sys.modules[name].__file__
    paths = sorted(pathlib.Path(outermost).parent.rglob('*.py')) if package and outermost else [pathlib.Path(one or '')]
    found = hashlib.sha256()
    for path in paths:
        found.update(path.name.encode() + b'\0' + path.read_bytes() + b'\0')
    return found.hexdigest()[:12]
