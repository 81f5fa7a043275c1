"""Configs, studies and guides that ship with genbench: next to the package in a checkout, inside it when installed."""

import ast
import pathlib
import shutil
from collections.abc import Iterator

from genbench.errors import UserError, did_you_mean, explained_disk_errors

PACKAGE = pathlib.Path(__file__).parent
_INSTALLED = PACKAGE / 'share'  # setup.py copies them there
ROOT = _INSTALLED if _INSTALLED.is_dir() else PACKAGE.parent
CHECKOUT = PACKAGE.parent == ROOT  # True in a clone of the repository, where results may be recorded
CONFIGS, STUDIES, GUIDES = 'configs', 'experiments', 'docs'
_SUFFIXES = {CONFIGS: '.py', STUDIES: '.py', GUIDES: '.md'}


def names(folder: str) -> list[str]:
    """The names of what ships in a folder: paths without suffix, such as digits/diffusion."""
    paths = (ROOT / folder).rglob(f'*{_SUFFIXES[folder]}')
    return sorted(path.relative_to(ROOT / folder).with_suffix('').as_posix() for path in paths)


def find(text: str, folder: str) -> pathlib.Path:
    """The file at this path or, if there is none, the one that ships under this name, if any.

    Args:
      text: a path, or a name such as digits/diffusion, with or without folder and suffix.
    """
    path, suffix = pathlib.Path(text), _SUFFIXES[folder]
    name = text.removeprefix(f'{folder}/').removesuffix(suffix)
    return ROOT / folder / f'{name}{suffix}' if not path.is_file() and name in names(folder) else path


def listing() -> Iterator[str]:
    """One line for each config, study and guide."""
    how = {
        CONFIGS: 'Configs, for genbench train --config=NAME --workdir=DIR',
        STUDIES: 'Studies, for genbench run NAME --out DIR',
        GUIDES: f'Guides, in {ROOT / GUIDES}',
    }
    for folder, heading in how.items():
        found = names(folder)
        yield f'{heading}:'
        yield from (f'  {name.ljust(max(map(len, found)))}  {_about(folder, name)}'.rstrip() for name in found)


def _about(folder: str, name: str) -> str:
    """The first line of a file's docstring, or the title of a guide."""
    text = (ROOT / folder / f'{name}{_SUFFIXES[folder]}').read_text()
    words = (ast.get_docstring(ast.parse(text)) or '') if folder != GUIDES else text.lstrip('# ')
    return words.partition('\n')[0]


@explained_disk_errors()
def copy(name: str, out: str) -> pathlib.Path:
    """Copy a file that ships under a name to a file of the user's own.

    Args:
      out: the file; '' for the same relative path in the working directory, such as configs/digits/diffusion.py.

    Raises:
      UserError: nothing ships under this name, or the file exists.
    """
    for folder in _SUFFIXES:
        source = find(name, folder)
        if ROOT in source.parents:
            break
    else:
        known = [one for folder in _SUFFIXES for one in names(folder)]
        raise UserError(f'genbench ships nothing called {name!r}. {did_you_mean(name, known)}')
    target = pathlib.Path(out) if out else source.relative_to(ROOT)
    if target.exists():
        raise UserError(f'{target} exists; name another file with --out.')
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
