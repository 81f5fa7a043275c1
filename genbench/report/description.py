"""study.json: a study's own description. Nothing here imports jax, so that a status can be read quickly."""

import pathlib
from typing import Any

from genbench.errors import UserError
from genbench.ranges import check_path
from genbench.reading import read_json
from genbench.report import claims

_STUDY = {
    'trials': [str], 'variants?': ({str: str}, None), 'title?': str, 'claim?': str, 'study?': str, 'command?': str,
    'commit?': str, 'baseline?': (str, None), 'figures?': ([str], None), 'budget?': (dict, None),
    'matched?': ({str: dict}, None), 'tests?': ([claims.SHAPE], None),
}  # fmt: skip


def read_study(path: pathlib.Path) -> dict[str, Any]:
    """Read the study.json in a study's folder.

    Raises:
      UserError: the file is damaged, or a trial has a name that no folder can have.
    """
    found = read_json(path / 'study.json', _STUDY, f'Write it again with: genbench run STUDY --out {path}')
    for name in found['trials']:
        check_path(name, f'A trial of {path / "study.json"}')
        if '/' in name or name in ('', '.', '..'):
            raise UserError(f'{path / "study.json"} lists the trial {name!r}, which is not a folder name.')
    return found
