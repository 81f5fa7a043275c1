"""Generative families. A family lives in the module of its name here, or in a module that a config names (`own`).

Modules that register no family hold code that several families share.
"""

import importlib
import pkgutil

from genbench.errors import UserError, did_you_mean
from genbench.families.base import Family
from genbench.families.registry import registered


def names() -> list[str]:
    """The names of all families that ship with genbench or have been registered."""
    for module in _modules():
        importlib.import_module(f'{__name__}.{module}')
    return sorted(registered())


def get(name: str) -> type[Family]:
    """The family class that configs call `name`."""
    if name not in registered() and name in _modules():
        importlib.import_module(f'{__name__}.{name}')
    if name not in registered():
        hint = 'Set family.name.' if not name else f'There is no family {name!r}; your own family needs family.modules.'
        raise UserError(f'{hint} {did_you_mean(name, names())}')
    return registered()[name]


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]
