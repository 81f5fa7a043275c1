"""A user's own project: a family, a config, a study and a test, to be changed step by step."""

import importlib.util
import keyword
import pathlib
import shutil

from genbench import shipped
from genbench.errors import UserError, explained_disk_errors

TEMPLATE = shipped.PACKAGE / 'project'
_NAME = 'my_family'  # the template's name for its module, family and test


@explained_disk_errors()
def create(name: str, out: str = '') -> list[str]:
    """Create a project whose family and module have this name.

    Args:
      out: the project folder, which must not exist; '' for `name` in the working directory.

    Returns:
      One line per file.

    Raises:
      UserError: the name is not a valid module name, or is taken; or the folder exists.
    """
    target = pathlib.Path(out or name)
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower() or not name.isascii():
        raise UserError(f'{name!r} is not a module name; use lower-case letters, digits and _, as in my_family.')
    if target.exists():
        raise UserError(f'{target} exists; choose another name, or another folder with --out.')
    if (shipped.PACKAGE / 'families' / f'{name}.py').is_file() or importlib.util.find_spec(name) is not None:
        raise UserError(f'The module name {name!r} is taken; choose another one.')
    partial = target.with_name(f'{target.name}.part')
    shutil.rmtree(partial, ignore_errors=True)
    for source in sorted(path for path in TEMPLATE.rglob('*.*') if '__pycache__' not in path.parts):
        path = partial / _renamed(str(source.relative_to(TEMPLATE)), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_renamed(source.read_text(), name))
    partial.rename(target)
    return [str(path) for path in sorted(target.rglob('*.*'))]


def _renamed(text: str, name: str) -> str:
    family = ''.join(part.capitalize() for part in name.split('_'))
    return text.replace(_NAME, name).replace('MyFamily', family)
