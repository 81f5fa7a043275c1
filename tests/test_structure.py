"""The shape of the code: imports point one way, and nothing outside the families knows one by name."""

import ast
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest

from genbench import families

ROOT = pathlib.Path(__file__).resolve().parents[1]
HELPERS = {'base', 'bounds', 'dequantisation', 'observations', 'paths', 'regression'}
SHIPPED = sorted({module.name for module in pkgutil.iter_modules(families.__path__)} - HELPERS)
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


def words(tree):
    """Identifiers and strings of a module, docstrings left out."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value
        for field in ('id', 'attr', 'arg', 'name', 'module', 'asname'):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield getattr(node, 'lineno', 0), value


def mentions(text):
    tree, pattern = ast.parse(text), re.compile(rf'\b({"|".join(SHIPPED)})\b')
    return [(line, word) for line, word in words(tree) if pattern.search(word)]


def test_a_mention_is_found_and_a_docstring_is_not():
    text = f'"""{SHIPPED[0]}"""\nx = "the {SHIPPED[0]}"\n{SHIPPED[1]} = 1\n'
    assert [line for line, _ in mentions(text)] == [2, 3]


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT / 'genbench')))
def test_no_family_is_named_outside_the_families(path):
    assert mentions(path.read_text()) == []
