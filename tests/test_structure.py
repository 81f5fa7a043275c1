"""The shape of the code: imports point one way, and nothing outside the families knows one by name.

To know one is to import its module, or to hold its name as a string, alone or as the value of `family.name`. A layer
may have an attribute of that name.
"""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import shipped

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = '|'.join(shipped.NAMES)
TOLD, REACHED = re.compile(rf'({NAMES})|.*\bfamily\.name=({NAMES})\b.*'), re.compile(rf'(.*\.)?families\.({NAMES})\b.*')
SOURCES = [path for path in sorted((ROOT / 'genbench').rglob('*.py')) if 'families' not in path.parts]


def test_imports_point_one_way():
    beside = str(pathlib.Path(sys.executable).parent)
    command = shutil.which('lint-imports', path=beside) or shutil.which('lint-imports')
    if command is None:
        pytest.skip('import-linter is not installed')
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def docstrings(tree):
    """The constants that stand alone as a statement."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def mentions(text):
    """(line, word) where a module names a family, docstrings left out."""
    tree = ast.parse(text)
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            if TOLD.fullmatch(node.value):
                yield node.lineno, node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            start = f'{getattr(node, "module", "") or ""}.'.lstrip('.')
            yield from ((node.lineno, one.name) for one in node.names if REACHED.fullmatch(start + one.name))
        elif isinstance(node, ast.Attribute) and REACHED.fullmatch(ast.unparse(node)):
            yield node.lineno, ast.unparse(node)


def test_what_knows_a_family_is_found_and_what_shares_its_name_is_not():
    name = shipped.NAMES[0]
    knows = [f'x == "{name}"', f'x = "family.name={name}"', f'import genbench.families.{name}', f'families.{name}.X',
             f'from genbench.families import {name}', f'from genbench.families.{name} import X']  # fmt: skip
    shares = [f'"""{name}"""', f'self.{name} = 1', f'{name} = 1', f'"the {name} of a block"', f'"block/{name}/kernel"']
    found = {line for line, _ in mentions('\n'.join([*knows, *shares]))}
    assert found == set(range(1, 1 + len(knows)))


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT / 'genbench')))
def test_no_family_is_named_outside_the_families(path):
    assert list(mentions(path.read_text())) == []


def test_networks_that_are_trained_convolve_in_one_place():
    """Elsewhere XLA would move images between devices; see `splitting.images_split`."""
    frozen = {'inception.py'}
    paths = (ROOT / 'genbench' / 'networks').glob('*.py')
    found = {path.name for path in paths if re.search(r'\blax\.conv\w*\(', path.read_text())}
    assert found - frozen == {'layers.py'}
