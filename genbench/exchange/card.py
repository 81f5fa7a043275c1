"""The README.md of exported weights: what they are, their data, training and scores, and their licence."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from genbench import config as configs
from genbench.evaluation import table
from genbench.training.runs import Run

_SHOWN = 40  # the most results in the table; results.jsonl has all of them


def text(
    run: Run, step: int, average: str, rows: Sequence[Mapping[str, Any]], use: Sequence[str], licence: str, library: str
) -> str:
    """A model card in Markdown, with the front matter that model hubs read.

    Args:
      rows: this checkpoint's rows of results.jsonl.
      use: lines that say what the files are and how to read them.
      licence: the licence of the weights; '' if none was given.
    """
    data = run.manifest['data']
    front = {
        'library_name': library,
        'license': licence or 'unknown',
        'datasets': [data['name']],
        'tags': ['genbench', run.family.name],
    }
    parts = [
        ['---', *(f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in front.items()), '---'],
        [f'# {run.family.name} of {data["name"]}'],
        list(use),
        ['## Data', '', *_data(data)],
        ['## Training', '', *_training(run, step, average)],
        ['## Results', '', *_results(rows)],
        ['## Licence', '', *_licence(licence, data['name'])],
    ]
    return '\n\n'.join('\n'.join(lines) for lines in parts) + '\n'


def _data(data: Mapping[str, Any]) -> list[str]:
    shape = '×'.join(map(str, data['shape']))
    classes = f'{data["classes"]} classes' if data['classes'] else 'no classes'
    lines = [f'`{data["name"]}`: images of {shape} (height, width, channels), {data["levels"]} levels, {classes}.']
    if data.get('content'):
        lines.append(f'The prepared files have the hash `{data["content"]}`.')
    return lines


def _training(run: Run, step: int, average: str) -> list[str]:
    manifest, summary = run.manifest, run.folder.read_summary() or {}
    facts = {
        'step': f'{step:,} of {run.config.train.num_steps:,}, batches of {run.config.train.batch_size}',
        'weights': f'the average {average}' if average != 'current' else 'the parameters of the last step',
        'parameters': ', '.join(f'{name} {number:,}' for name, number in manifest['parameters'].items()),
        'FLOPs of training': f'{summary["training_flops"]:.3g}' if summary.get('training_flops') else '',
        'devices': ', '.join(sorted(set(manifest['devices']))),
        'config': f'`config.json`, hash `{configs.config_hash(run.config)}`',
        'state': f'SHA-256 `{run.sha256(step)}`',
        **manifest.get('notes', {}),
        'borrowed': ', '.join(f'{name} `{one["state_sha256"][:12]}`' for name, one in manifest['borrowed'].items()),
        'genbench': ' '.join(filter(None, (manifest['versions'].get('genbench', ''), manifest.get('commit', '')))),
    }
    return ['| | |', '|---|---|', *(f'| {name} | {value} |' for name, value in facts.items() if value)]


def _results(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ['This checkpoint has not been evaluated.']
    lines = ['| metric | value | kind | sampler | evaluations | n | protocol |', '|---|---|---|---|---|---|---|']
    for row in rows[:_SHOWN]:
        cells = (row['metric'], table.value(row), row.get('kind') or '', row.get('sampler') or '', row.get('nfe'),
                 row.get('n'), f'`{row.get("protocol_hash") or ""}`')  # fmt: skip
        lines.append('| ' + ' | '.join('' if cell is None else str(cell) for cell in cells) + ' |')
    more = f'It has {len(rows) - _SHOWN} more rows. ' if len(rows) > _SHOWN else ''
    return [*lines, '', f'`results.jsonl` has these rows with their protocols, which say all that a number depends '
            f'on. {more}Numbers with different protocols are not comparable.']  # fmt: skip


def _licence(licence: str, data: str) -> list[str]:
    said = f'The licence of these weights is {licence}.' if licence else 'These weights have no stated licence.'
    return [f'{said} The data set `{data}` has its own terms. genbench is licensed under Apache 2.0.']
