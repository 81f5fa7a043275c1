"""Config and study files: Python that is run for the return value of one of its functions."""

import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from genbench import shipped
from genbench.errors import UserError, did_you_mean
from genbench.ranges import check_path, said


def call(path: str, folder: str, function: str, what: str, convert: Callable[[Any], Any]) -> Any:
    """Call `function()` of the file, and return `convert` of its result.

    Args:
      path: the file, or the name of one that ships with genbench.
      folder: where such files ship.
      what: the kind of file, for messages.
      convert: may also run the file's code, because the values it gets are the file's own objects.

    Raises:
      UserError: the file or the function does not exist, or running it ends in an exit or any exception.
    """
    file = shipped.find(check_path(path, f'The {what}'), folder)
    known = shipped.names(folder)
    return _explained(path, file, what, known, lambda: convert(_function(file, function, what)()))


def load(path: str, function: str, what: str) -> Callable[..., Any]:
    """Load a function of the file without calling it. Raises a UserError like `call`."""
    file = pathlib.Path(check_path(path, f'The {what}'))
    return _explained(path, file, what, (), lambda: _function(file, function, what))


def _function(file: pathlib.Path, function: str, what: str) -> Callable[..., Any]:
    module_spec = importlib.util.spec_from_file_location(f'genbench_{function}', file)
    if module_spec is None or module_spec.loader is None:
        raise _NotPython(f'{file} is not a Python file; a {what} ends in .py and defines {function}().')
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f'it does not define {function}().')
    return getattr(module, function)


class _NotPython(UserError):
    """A message that is passed on unchanged."""


def _explained(path: str, file: pathlib.Path, what: str, known: Sequence[str], action: Callable[[], Any]) -> Any:
    if not file.is_file():
        near = [str(other) for other in file.parent.glob('*.py')] if file.parent.is_dir() else []
        hint = did_you_mean(path, [*near, *known])
        if not hint.startswith('Did'):
            hint = '"genbench config list" prints the shipped ones.' if known else ''
        raise UserError(f'There is no {what} {path}. {hint}'.strip())
    try:
        return action()
    except (KeyboardInterrupt, _NotPython):
        raise
    except UserError as error:
        raise UserError(f'The {what} {path} cannot be read: {error}') from None
    except SystemExit:
        raise UserError(f'The {what} {path} cannot be read: it calls exit() instead of returning.') from None
    except BaseException as error:  # the file's code may raise anything, not only an Exception
        raise UserError(f'The {what} {path} cannot be read: {said(error)}.') from None
