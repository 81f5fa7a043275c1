"""Print result rows as a table."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from genbench.evaluation.protocol import told_options


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per row: metric, value ± spread, kind, sampler, evaluations, images, features."""
    table = Table('metric', 'value', 'kind', 'sampler', 'nfe', 'n', box=None)
    for row in rows:
        method = row['protocol'].get('method')
        sets = len(row.get('values') or ())
        count = '' if row['n'] is None else str(row['n'])
        table.add_row(
            row['metric'] + (f' ({method})' if method else ''), value(row), row['kind'] or '',
            ' '.join(filter(None, (row['sampler'], told_options(row['protocol'])))),
            '' if row['nfe'] is None else str(row['nfe']), f'{sets} × {count}' if sets > 1 else count,
        )  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    shown = sorted({row['features'] for row in rows if row.get('features')})
    return out.getvalue().rstrip() + (f'\nfeatures: {", ".join(shown)}' if shown else '')


def value(row: Mapping[str, Any]) -> str:
    """'2.031 ± 0.015 se', '1.91 ± 0.2 sd', or a dash if there is no number.

    ± is the standard deviation over sets of samples (sd), or for a likelihood the standard error over images (se).
    Neither covers how much another training would differ.
    """
    if row['value'] is None:
        return '–'
    shown = f'{row["value"]:,.4g}' if abs(row['value']) < 1e6 else f'{row["value"]:.3e}'
    if row.get('sd') is not None:
        return f'{shown} ± {row["sd"]:.2g} sd'
    return shown + (f' ± {row["std_err"]:.2g} se' if row['std_err'] is not None else '')
