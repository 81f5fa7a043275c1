"""What evidence for a row of the ledger says beside its number: its code, what it took, and how training went.

This reads files only, so that `genbench baselines` answers at once.
"""

import ast
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from genbench import shipped
from genbench.reading import read_rows
from genbench.studies import package

POINTS = 50  # most points of a training curve that are kept
_CURVE = ('/loss', 'evaluation/')  # parts of the names of scalars that a curve keeps


def recipe(row: Any) -> str:
    """A hash of a row's recipe: its config file without docstrings, what the row changes, and what is measured.

    The files that a config builds on by `config.read_file` count as well, and so do the recipes of lenders.
    """
    parts = [
        _code(row.path), row.overrides, row.evaluation, row.metric, dict(row.measured), row.seeds
    ]  # fmt: skip
    if row.lenders:
        parts += [{name: (_code(path), more) for name, (path, more) in row.lender_recipes.items()}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _code(path: pathlib.Path) -> str:
    """The code of a config file, and of those that it reads, without docstrings, comments and layout."""
    tree = ast.parse(path.read_text())
    read = [node.args[0].value for node in ast.walk(tree) if isinstance(node, ast.Call) and _reads(node.func)
            and node.args and isinstance(node.args[0], ast.Constant)]  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    bases = [shipped.find(str(name), shipped.CONFIGS) for name in read]
    return '\n'.join([ast.unparse(tree), *(_code(base) for base in bases)])


def _reads(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == 'read_file'


def origin(row: Any) -> dict[str, str]:
    """What tells whether evidence is still current."""
    return {'code': package.code(), 'recipe': recipe(row)}


def outdated(row: Any, found: Mapping[str, Any] | None, code: str = '') -> str:
    """What a row was measured by, if not by the present code and recipe; '' if it was, or if it has no evidence.

    Args:
      code: the present code, if it is not the installed one.
    """
    if found is None or not row.config or not row.path.is_file():
        return ''
    if found.get('recipe') not in (None, recipe(row)):
        return 'another recipe'
    return '' if found.get('code') == (code or package.code()) else 'other code'


def renewal(row: Any) -> str:
    """The command that measures a row anew."""
    return f'genbench verify {row.id} --record'


def curve(metrics: pathlib.Path) -> dict[str, list[Any]]:
    """The step, and the losses and scores at it, at up to POINTS rows of metrics.jsonl, the last one included."""
    rows = [row for row in read_rows(metrics) if 'step' in row]
    kept = [rows[index] for index in thinned(len(rows))]
    names = [name for name in (kept[-1] if kept else {}) if any(part in name for part in _CURVE)]
    return {name: [row.get(name) for row in kept] for name in ('step', *names)} if names else {}


def thinned(count: int, most: int = POINTS) -> Sequence[int]:
    """At most `most` of the indices below `count`, evenly spread, with the first and the last."""
    if count <= most:
        return range(count)
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]


def processor() -> str:
    """The model of the processor, where the system says it."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return ''
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), '')


def device(found: Mapping[str, Any]) -> str:
    """Where a measurement was made, in a few words: '2 cores of AMD EPYC', or the accelerators' names."""
    named = ', '.join(name.partition(':')[2] for name in found.get('devices', ()) if name != 'cpu:cpu')
    cores = found.get('cores')
    if named or not cores:
        return named or 'CPU'
    return f'{cores} core{"s" if cores > 1 else ""} of {found.get("processor") or "a CPU"}'


def span(seconds: float | None) -> str:
    """A duration with two digits or more, in the unit that suits it."""
    if seconds is None:
        return '–'
    for size, unit in ((86400, 'days'), (3600, 'h'), (60, 'min'), (1, 's')):
        if seconds >= 1.5 * size or unit == 's':
            break
    value = seconds / size
    return f'{value:,.0f} {unit}' if value >= 10 else f'{value:.1f} {unit}'
