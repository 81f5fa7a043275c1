"""The table of reproductions in Markdown, generated from the ledger and the evidence.

`genbench baselines --markdown > docs/reproductions/README.md` writes the page that is committed.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from genbench import shipped
from genbench.studies import ledger, package, records

PAGES = shipped.ROOT / 'docs' / 'reproductions'
PAGE = PAGES / 'README.md'
_CODE = re.compile(r'code\s`(\w+)`')
HEAD = """# Published numbers, reproduced

`genbench baselines --markdown > docs/reproductions/README.md` writes this page from `genbench/baselines.toml`, which
holds what was published, and `docs/baselines`, which holds the evidence. The evidence of a row names its protocol,
versions, code, training curve and differences from the paper. [How to add a row](../baselines.md).

"""
LEGEND = """
The ± after a published number is the tolerance, and the reasons for it are below. The ± after ours is the standard
deviation over seeds where there are several, and otherwise the standard error over images or samples of one training.
The time is that of training and evaluation. A row *measured by other code* comes from other sources than those of code
`{code}`, a hash of the sources with which this page was written. They may have changed since, so a row without these
words need not come from the present code; `genbench baselines` compares with the code that is installed. The command in
the last column measures a row again. *number unconfirmed* means that the published number is from memory.
"""


def page(rows: Sequence[ledger.Row], code: str = '', folder: pathlib.Path | None = None) -> str:
    """The page of all rows that have a recipe or evidence.

    Args:
      code: the code with which evidence is compared; by default the installed one.
      folder: where the evidence is; by default where `ledger.evidence` looks.
    """
    code, pages = code or package.code(), _pages()
    found = {row.id: ledger.evidence(row, folder) for row in rows}
    shown = sorted(
        (row for row in rows if row.config or found[row.id]), key=lambda row: _order(row, found[row.id])
    )  # stable: rows of one status stay in the order of the ledger
    counts = [(name, sum(ledger.status(row, found[row.id]) == name for row in rows)) for name in ledger.STATUSES]
    table: list[tuple[str, ...]] = [
        ('row', 'paper', 'published', 'ours', 'status', 'time', 'device', 'page', 'command')
    ]
    table += [_cells(row, found[row.id], code, pages) for row in shown]
    lines = [f'| {" | ".join(cells)} |' for cells in table]
    lines.insert(1, '|' + '---|' * len(table[0]))
    summary = f'{len(rows)} rows: {", ".join(f"{count} {name}" for name, count in counts)}.'
    reasons = dict.fromkeys(row.reason for row in shown if found[row.id])
    named = [f'- {reason}: {", ".join(_ids(shown, found, reason))}' for reason in reasons]
    tolerances = ['', '## Why the tolerances are what they are', '', *named, ''] if named else ['']
    return HEAD + '\n'.join([summary, '', *lines]) + '\n' + LEGEND.format(code=code) + '\n'.join(tolerances)


def code_of(text: str) -> str:
    """The code with which a page compares its evidence; '' if it names none."""
    found = _CODE.search(text)
    return found[1] if found else ''


def _order(row: ledger.Row, found: Mapping[str, Any] | None) -> int:
    return ledger.STATUSES.index(ledger.status(row, found))


def _ids(rows: Sequence[ledger.Row], found: Mapping[str, Any], reason: str) -> list[str]:
    return [f'`{row.id}`' for row in rows if row.reason == reason and found[row.id]]


def _cells(row: ledger.Row, found: Mapping[str, Any] | None, code: str, pages: Mapping[str, str]) -> tuple[str, ...]:
    unit = f'{row.metric.replace("_", " ")} on {row.data}'
    published = f'{row.value:g} ± {row.tolerance:.2g} {unit}'
    link = next((f'[page]({name})' for name, text in pages.items() if row.id in _words(text)), '')
    status, outdated = ledger.status(row, found), records.outdated(row, found, code)
    status += f', measured by {outdated}' if outdated else ''
    status += ' (number unconfirmed)' if row.confirmed == 'memory' else ''
    if found is None:
        return f'`{row.id}`', row.paper, published, '', status, '', '', link, f'`{records.renewal(row)}`'
    seconds = [part for part in (found.get('seconds') or {}).values() if part is not None]
    time = records.span(sum(seconds)) if seconds else '–'
    return (
        f'`{row.id}`', row.paper, published, _ours(found), status, time, records.device(found), link,
        f'`{records.renewal(row)}`',
    )  # fmt: skip


def _ours(found: Mapping[str, Any]) -> str:
    """The measured number, its spread and the number of seeds."""
    if found.get('value') is None:
        return 'no number'
    spread, values = found.get('sd') or found.get('std_err'), found.get('values') or ()
    told = f' ± {spread:.2g}' if spread else ''
    return f'{found["value"]:.4g}{told}{f", {len(values)} seeds" if len(values) > 1 else ""}'


def _pages() -> dict[str, str]:
    """The hand-written pages, by name."""
    found = sorted(PAGES.glob('*.md')) if PAGES.is_dir() else []
    return {path.name: path.read_text() for path in found if path != PAGE}


def _words(text: str) -> set[str]:
    return {word.strip('.') for word in re.findall(r'[\w.-]+', text)}
