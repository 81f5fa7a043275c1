"""The registry of families, by the names that configs use."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from genbench.errors import UserError

if TYPE_CHECKING:
    from genbench.families.base import Family

_REGISTRY: 'dict[str, type[Family]]' = {}
_Kind = TypeVar('_Kind', bound='type[Family]')


def register(name: str) -> Callable[[_Kind], _Kind]:
    """Class decorator that lets configs set `family.name = name`.

    Raises:
      UserError: a family in another module already has this name.
    """

    def add(cls: _Kind) -> _Kind:
        if name in _REGISTRY and _REGISTRY[name].__module__ != cls.__module__:
            raise UserError(f'Two modules register a family {name!r}: {_REGISTRY[name].__module__} and '
                            f'{cls.__module__}; rename one of them.')  # fmt: skip
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def registered() -> 'Mapping[str, type[Family]]':
    return _REGISTRY
