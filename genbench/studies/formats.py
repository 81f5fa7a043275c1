"""Format a table of results as text, CSV, Markdown or LaTeX."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence

from genbench.studies.tables import Cell, Table

_LATEX = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '$': r'\$', '&': r'\&', '#': r'\#', '^': r'\textasciicircum{}',
    '_': r'\_', '~': r'\textasciitilde{}', '%': r'\%', '–': '--', '±': r'$\pm$', '−': '$-$', 'Δ': r'$\Delta$',
    '<': r'$<$', '>': r'$>$', '|': r'$|$',
}  # fmt: skip


def text(table: Table) -> str:
    """Aligned columns, followed by the notes."""
    body = [[*table.keys, *table.columns], *_words(table)]
    widths = [max(len(line[i]) for line in body) for i in range(len(body[0]))]
    lines = ['  '.join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in body]
    return '\n'.join([*lines, '', *_notes(table)])


def to_csv(table: Table) -> str:
    """Every number in full precision: mean, sd, sd_seeds and n per column, and the comparison with the baseline."""
    parts = [
        'mean',
        'sd',
        'sd_seeds',
        'n',
        *(['difference', 'low', 'high', 'pairs', 'against'] if table.compared else []),
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    names = [f'{column} {part}' if table.columns != ('value',) else part for column in table.columns for part in parts]
    writer.writerow([*table.keys, *names])
    for labels, cells in table.lines:
        found = [cells.get(column) for column in table.columns]
        # csv writes floats by repr, which reads back as the same number.
        writer.writerow([*labels, *(getattr(cell, part) if cell else None for cell in found for part in parts)])
    return out.getvalue()


def markdown(table: Table) -> str:
    def line(words: Sequence[str]) -> str:
        return '| ' + ' | '.join(word.replace('|', r'\|') for word in words) + ' |'

    rule = '|' + '---|' * len(table.keys) + '---:|' * len(table.columns)
    body = [line([*table.keys, *table.columns]), rule, *map(line, _words(table))]
    return '\n'.join([*body, '', *_notes(table)])


def latex(table: Table) -> str:
    """A booktabs tabular. The notes are comments."""

    def line(words: Sequence[str]) -> str:
        escaped = ' & '.join(re.sub(f'[{re.escape("".join(_LATEX))}]', lambda found: _LATEX[found[0]], word)
                             for word in words)  # fmt: skip
        guard = '{}' if escaped[:1] in ('[', '*') else ''  # after \\, LaTeX would read these as an option
        return guard + escaped + r' \\'

    return '\n'.join([
        r'% \usepackage{booktabs}', *(f'% {note}' for note in _notes(table)),
        r'\begin{tabular}{' + 'l' * len(table.keys) + 'r' * len(table.columns) + '}', r'\toprule',
        line([*table.keys, *table.columns]), r'\midrule', *map(line, _words(table)), r'\bottomrule', r'\end{tabular}',
    ])  # fmt: skip


FORMATS: dict[str, Callable[[Table], str]] = {'table': text, 'csv': to_csv, 'md': markdown, 'latex': latex}
SUFFIXES = {'.csv': 'csv', '.md': 'md', '.tex': 'latex'}


def _words(table: Table) -> list[list[str]]:
    uniform = len(_counts(table)) < 2
    return [
        [*labels, *(_cell(cells[name], uniform) if name in cells else '–' for name in table.columns)]
        for labels, cells in table.lines
    ]


def _counts(table: Table) -> set[int]:
    return {cell.n for _, cells in table.lines for cell in cells.values() if cell.n}


def _notes(table: Table) -> list[str]:
    counts = _counts(table)
    one = '± is the standard deviation over sets of samples, or the standard error over test images; the '
    one += 'variation between training runs is unknown.'
    if counts == {1}:
        said = [f'n = 1 seed each. {one}']
    elif len(counts) == 1:
        said = [f'Mean ± standard deviation over n = {next(iter(counts))} seeds.']
    else:
        said = ['Mean ± standard deviation over n seeds.', *([f'With n = 1, {one}'] if 1 in counts else [])]
    return [*(said if counts else []), *table.notes]


def _cell(cell: Cell, uniform: bool) -> str:
    if cell.mean is None:
        return '–'
    shown = number(cell.mean, cell.sd)
    if not uniform:
        shown += f' (n={cell.n})'
    if cell.difference is None:
        return shown
    to = f' to {cell.against}' if cell.against else ''
    if cell.low is None or cell.high is None:
        return f'{shown}, Δ{to} {_signed(cell.difference, None)} (1 pair, no interval)'
    half = (cell.high - cell.low) / 2
    inside = f'[{_signed(cell.low, half)}, {_signed(cell.high, half)}]'
    pairs = f' ({cell.pairs} pairs)' if cell.pairs != cell.n else ''
    return f'{shown}, Δ{to} {_signed(cell.difference, half)} {inside}{pairs}'


def number(mean: float, spread: float | None = None) -> str:
    """Like '2.054 ± 0.014': the spread with two digits, the mean to the same place; or four digits without a spread."""
    if abs(mean) >= 1e7:
        return f'{mean:.3e}' + (f' ± {spread:.1e}' if spread else '')
    if not spread:
        shown = f'{mean:,.0f}' if mean == round(mean) or abs(mean) >= 1e4 else f'{mean:.4g}'
        return shown if spread is None else f'{shown} ± 0'
    places = _places(spread)
    return f'{mean:.{places}f} ± {spread:.{places}f}'


def _places(spread: float) -> int:
    return min(max(1 - math.floor(math.log10(spread)), 0), 12)


def _signed(value: float, half: float | None) -> str:
    shown = f'{value:+.{_places(half)}f}' if half and abs(value) < 1e7 else f'{value:+.4g}'
    return shown.replace('-', '−')
