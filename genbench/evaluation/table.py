"""Result rows as a table on the screen."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a row: metric, value ± standard error, kind, sampler, evaluations, images."""
    table = Table('metric', 'value', 'kind', 'sampler', 'nfe', 'n', box=None)
    for row in rows:
        method = row['protocol'].get('method')
        table.add_row(
            row['metric'] + (f' ({method})' if method else ''), value(row), row['kind'] or '', row['sampler'] or '',
            *('' if row[key] is None else str(row[key]) for key in ('nfe', 'n')),
        )  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=100).print(table)
    return out.getvalue().rstrip()


def value(row: Mapping[str, Any]) -> str:
    """'2.031 ± 0.015', or a dash where there is no number."""
    if row['value'] is None:
        return '–'
    shown = f'{row["value"]:,.4g}' if abs(row['value']) < 1e6 else f'{row["value"]:.3e}'
    return shown + (f' ± {row["std_err"]:.2g}' if row['std_err'] is not None else '')
