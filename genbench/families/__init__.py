"""Generative families. A family is found by the name of its module here, or registered from anywhere else."""

import importlib
import pkgutil

from genbench.errors import UserError, did_you_mean
from genbench.families.base import Family, registered

_HELPERS = ('base', 'bounds', 'dequantisation', 'observations', 'paths', 'regression')


def names() -> list[str]:
    """Every family that ships or has been registered."""
    shipped = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS]
    return sorted({*shipped, *registered()})


def get(name: str) -> type[Family]:
    """The family class that configs call `name`."""
    if name not in names():
        hint = 'Set family.name.' if not name else f'No family is called {name!r}.'
        raise UserError(f'{hint} {did_you_mean(name, names())}')
    if name not in registered():
        importlib.import_module(f'{__name__}.{name}')
    return registered()[name]
