"""What a run writes while it trains: metrics.jsonl, TensorBoard events, and progress for the user."""

import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

import jax
import numpy as np
from PIL import Image

from genbench.config import Config
from genbench.reading import read_rows
from genbench.training.files import write_atomically
from genbench.training.trackers import Trackers

ROW = {'step': int, str: (float, None)}  # shape of a row of metrics.jsonl


def means(pending: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the scalars over some steps, None for a non-finite one. Counts are those of the last step."""
    rows = jax.device_get(pending)
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    finite: dict[str, Any] = {name: value if np.isfinite(value) else None for name, value in found.items()}
    return finite | {name: int(value) for name, value in rows[-1].items() if name.startswith('skipped/')}


class MetricsLog:
    """Appends rows of scalars. A resumed run first drops the rows past the step it restored.

    A silent log only reads: it belongs to a process that leaves writing to the first one.

    Args:
      config: of the run. It names the trackers that also receive the rows.

    Attributes:
      flops: operations of training so far; None from the moment that part of them is unknown.
    """

    def __init__(
        self,
        path: pathlib.Path,
        events: pathlib.Path,
        restored_step: int,
        silent: bool = False,
        config: Config | None = None,
    ):
        self._file: IO[str] | None = None
        before = read_rows(path, ROW)
        rows = [row for row in before if row['step'] <= restored_step]
        self.last: Mapping[str, Any] = rows[-1] if rows else {}
        self.wall_time: float = self.last.get('wall_time') or 0.0  # seconds of training before this start
        complete = self.last.get('step') == restored_step
        self.flops: float | None = (self.last.get('train/flops') if complete else None) if restored_step else 0.0
        self.seconds = {name[8:]: value or 0.0 for name, value in self.last.items() if name.startswith('seconds/')}
        self._events = Events(events, restored_step + 1)
        if not silent:
            write_atomically(path, ''.join(json.dumps(row) + '\n' for row in rows))
            self._file = path.open('a')
        self._trackers = None if silent or config is None else Trackers(config, path.parent, before, restored_step)

    def spend(self, flops: float | None) -> None:
        """Add to `flops`; None means that the number of operations is unknown."""
        self.flops = None if self.flops is None or flops is None else self.flops + flops

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row: step, wall_time, images_seen, then scalars whose names contain slashes."""
        self.last = row
        if self._file is None:
            return
        self._file.write(json.dumps(row) + '\n')
        self._file.flush()
        self._events.write(row['step'], {key: row[key] for key in row if key not in ('step', 'wall_time')})
        if self._trackers is not None:
            self._trackers.write(row)

    def picture(self, step: int, path: pathlib.Path) -> None:
        """Send a PNG of samples at this step to everything that shows the rows."""
        if self._file is None:
            return
        self._events.picture(step, 'samples', path)
        if self._trackers is not None:
            self._trackers.picture(step, 'samples', path)

    def close(self, complete: bool = True) -> None:
        self._events.close()
        if self._trackers is not None:
            self._trackers.close(complete)
        if self._file is not None:
            self._file.close()


class Events:
    """TensorBoard events, written in this thread. tensorboardX's own thread hangs for ever once it has met a full disk.

    Events of an earlier start are hidden from `purge_step` on.
    """

    def __init__(self, folder: pathlib.Path, purge_step: int):
        self._folder, self._purge_step = folder, purge_step
        self._writer: Any = None

    def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Write one event with all scalars of a step, except those that are not finite."""
        _, _, summary_pb2 = tensorboard()
        finite = {tag: value for tag, value in scalars.items() if value is not None}
        self._add(step, [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()])

    def picture(self, step: int, tag: str, path: pathlib.Path) -> None:
        """Write one event with the picture in a PNG file."""
        _, _, summary_pb2 = tensorboard()
        with Image.open(path) as image:
            width, height = image.size
        shown = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
        )
        self._add(step, [summary_pb2.Summary.Value(tag=tag, image=shown)])

    def _add(self, step: int, values: Sequence[Any]) -> None:
        event_file_writer, event_pb2, summary_pb2 = tensorboard()
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            self._writer = event_file_writer.EventsWriter(str(self._folder / 'events'))
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(event_pb2.Event(step=self._purge_step, session_log=start))
        event = event_pb2.Event(step=step, wall_time=time.time(), summary=summary_pb2.Summary(value=values))
        self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def tensorboard() -> tuple[Any, Any, Any]:
    """tensorboardX without torch. It would import an installed torch, which takes seconds and gains nothing here."""
    absent = 'torch' not in sys.modules
    if absent:
        sys.modules['torch'] = cast(Any, None)
    try:
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2, summary_pb2
    finally:
        if absent:
            del sys.modules['torch']
    return event_file_writer, event_pb2, summary_pb2


class Progress:
    """A live bar on a terminal, or a plain line every few seconds elsewhere. Both go to stderr."""

    def __init__(self, title: str, start: int, total: int, unit: str = 'step', quiet: bool = False):
        self._title, self._total, self._unit, self._quiet = title, total, unit, quiet
        self._began, self._first = time.monotonic(), start
        self._said = -1e9
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from rich import console, progress

            self._bar = progress.Progress(
                progress.TextColumn('{task.description}'),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn('{task.fields[note]}'),
                progress.TimeRemainingColumn(),
                console=console.Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, completed=start, note='')
            self._bar.start()

    def update(self, done: int, note: str = '') -> None:
        """Report that `done` of the total are done. `note` says how fast or how well."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._quiet or (now - self._said < 5 and done < self._total):
            return
        self._said = now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        left = f'{(self._total - done) / rate:.0f} s left' if rate > 0 else '? s left'
        print(f'{self._title}: {self._unit} {done} of {self._total}, {note + ", " if note else ""}{left}',
              file=sys.stderr, flush=True)  # fmt: skip

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
