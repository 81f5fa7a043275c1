"""Publish the rows and pictures of an evaluation where the run logs its losses: TensorBoard and the chosen trackers."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench.evaluation.protocol import picture
from genbench.reading import read_rows
from genbench.training import runs
from genbench.training.metrics import ROW, Events
from genbench.training.trackers import Trackers


def publish(run: runs.Run, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Log new rows of results.jsonl as scalars at their checkpoint's step, and the grids of their samplers."""
    options, logged = run.config.evaluation, read_rows(run.folder.metrics, ROW)
    scalars = {tag(row, options): row['value'] for row in rows if row['value'] is not None}
    names = {picture(row['protocol'], options) for row in rows if 'num_samples' in row['protocol']}
    pictures = {f'samples/{name.removesuffix(".png")}': run.folder.samples / name for name in sorted(names)}
    pictures = {name: path for name, path in pictures.items() if path.is_file()}
    if not scalars:
        return
    events = Events(run.folder.path / 'events', step + 1)  # step + 1, so that no row of this step is hidden
    events.write(step, scalars)
    for name, path in pictures.items():
        events.picture(step, name, path)
    events.close()
    trackers = Trackers(run.config, run.folder.path, logged, logged[-1]['step'] if logged else step)
    trackers.results(step, scalars, pictures)
    trackers.close((run.folder.read_summary() or {}).get('complete', False))


def tag(row: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The name of a row there: results/METRIC with its sampler, or with the method of a likelihood."""
    protocol = row['protocol']
    way = picture(protocol, options).removesuffix('.png') if 'steps' in protocol else protocol.get('method', '')
    return '/'.join(part for part in ('results', row['metric'], way) if part)
