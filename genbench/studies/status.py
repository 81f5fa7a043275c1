"""The status of a study's trials, read from their folders, also on another machine that sees the same files."""

import dataclasses
import datetime
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.errors import UserError
from genbench.ranges import check_path
from genbench.report.description import read_study
from genbench.studies import state
from genbench.studies.launchers import squeue

SILENT_SECONDS = 60.0  # a running trial writes its status every few seconds
LINE_SECONDS = 10.0
LOGS = 3  # how many failed trials to show the last log lines of
NARROWER = ('job', 'host', 'updated', 'share', 'images/s', 'left')  # columns dropped in this order on a narrow terminal
COLUMNS = ('trial', 'state', 'step', 'share', 'images/s', 'left', 'updated', 'host', 'job', 'reason')
_FIRST = ('running', 'failed', 'preempted', 'queued', 'done')
_COLOURS = {'running': 'cyan', 'done': 'green', 'failed': 'red', 'preempted': 'yellow'}


@dataclasses.dataclass(frozen=True)
class Row:
    """The current state of one trial.

    Attributes:
      state: one of `state.STATES`.
      speed: training speed in images per second; None if not known yet.
      left: seconds of training left; None if unknown.
      part: progress of its evaluation, such as '3/8'; '' if not known yet.
      seconds: time it has taken so far.
      age: seconds since its status was written; None if it never was.
      reason: why it failed, is waiting, or may be stuck; otherwise ''.
    """

    trial: str
    state: str
    phase: str
    step: int
    num_steps: int
    speed: float | None
    left: float | None
    age: float | None
    host: str
    job: str
    reason: str
    last_lines: tuple[str, ...]
    part: str = ''
    seconds: float = 0.0

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts for `COLUMNS`."""
        share = f'{self.step / self.num_steps:.0%}' if self.num_steps else ''
        running = self.state == 'running'
        return (
            self.trial,
            f'{self.state} ({f"{self.phase} {self.part}".strip()})'
            if running and self.phase == 'evaluating'
            else self.state,
            f'{self.step}/{self.num_steps}' if self.num_steps else '',
            share,
            f'{self.speed:.0f}' if self.speed is not None and running else '',
            duration(self.left) if self.left is not None and running else '',
            f'{duration(self.age)} ago' if self.age is not None else '',
            self.host,
            self.job,
            self.reason,
        )


def duration(seconds: float) -> str:
    """A duration in words, such as 12 s, 3 min or 5 h."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 100 * 60 else f'{seconds / 3600:.0f} h'


def of_study(folder: str | pathlib.Path) -> list[Row]:
    """The trials in a study's folder, in the order of the study.

    Raises:
      UserError: the folder does not hold a study.
    """
    path = pathlib.Path(check_path(str(folder), 'The folder'))
    if not (path / 'study.json').exists():
        raise UserError(f'{path} is not a study (no study.json); start one with: '
                        f'genbench run STUDY --out {path}')  # fmt: skip
    return rows([path / 'trials' / name for name in read_study(path)['trials']])


def rows(folders: Sequence[pathlib.Path]) -> list[Row]:
    """The status of the trials in some folders. For those on a cluster, the cluster is asked."""
    found = {folder: state.read(folder) for folder in folders}
    jobs = squeue.read() if any(_asks(status) for status in found.values()) else None
    return [_row(folder, status, jobs) for folder, status in found.items()]


def _asks(status: Mapping[str, Any]) -> bool:
    return status['state'] in ('queued', 'running', 'preempted') and status['job'].startswith('slurm:')


def _row(folder: pathlib.Path, status: dict[str, Any], jobs: Mapping[str, squeue.Entry] | None) -> Row:
    age = _age(status['updated'])
    changes = {}
    if jobs is not None and _asks(status):
        changes = squeue.judge(status, jobs)
    elif status['state'] == 'running':
        changes = _judge_process(status)
    if not changes and status['state'] == 'running' and age is not None and age > SILENT_SECONDS:
        changes = {'reason': f'no sign of life for {duration(age)}'}
    status = {**status, **changes}
    last = state.last_row(folder / 'metrics.jsonl') if status['phase'] == 'training' else {}
    step, speed = max(status['step'], last.get('step', 0)), last.get('speed/images_per_second')
    left = (status['num_steps'] - step) * last['images_seen'] / last['step'] / speed if speed and step else None
    return Row(folder.name, status['state'], status['phase'], step, status['num_steps'], speed, left, age,
               status['host'], status['job'], status['reason'], tuple(status['last_lines']), status['part'],
               sum(status['seconds'].values()))  # fmt: skip


def _age(updated: str) -> float | None:
    if not updated:
        return None
    then = datetime.datetime.fromisoformat(updated)
    return max(0.0, (datetime.datetime.now(datetime.UTC) - then).total_seconds())


def _judge_process(status: Mapping[str, Any]) -> dict[str, str]:
    """Correct the status of a running trial whose process on this machine is gone."""
    kind, _, pid = status['job'].partition(':')
    if kind != 'local' or status['host'] != state.host() or pathlib.Path(f'/proc/{pid}').exists():
        return {}
    if not pathlib.Path('/proc/self').exists():
        return {}
    return {'state': 'failed', 'reason': 'its process has disappeared; run the study again to continue'}


def text(found: Sequence[Row]) -> str:
    """Plain lines, one per trial, below the column names."""
    table = [COLUMNS, *(row.cells for row in found)]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(COLUMNS) - 1)]
    return '\n'.join('  '.join([*map(str.ljust, cells[:-1], widths), cells[-1]]).rstrip() for cells in table)


def table(found: Sequence[Row], width: int) -> Any:
    """The same for a terminal of this many columns, with the reasons below."""
    from rich import box, console, markup
    from rich import table as tables

    shown = tables.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = _fitting(found, width)
    for name in names:
        right, whole = name in ('step', 'share', 'images/s', 'left'), name != 'trial'  # a long name may wrap
        shown.add_column(name, justify='right' if right else 'left', no_wrap=whole, overflow='ellipsis' if whole
                         else 'fold')  # fmt: skip
    for row in found:
        cells = dict(zip(COLUMNS, row.cells, strict=True))
        shown.add_row(*(markup.escape(cells[name]) for name in names), style=_COLOURS.get(row.state, ''))
    reasons = [markup.escape(f'{row.trial}: {row.reason}') for row in found if row.reason]
    return console.Group(shown, *reasons, counts(found))


def _fitting(found: Sequence[Row], width: int) -> list[str]:
    """The columns that fit. Reasons are shown below the table."""
    names = [name for name in COLUMNS if name != 'reason']
    lines = [COLUMNS, *(row.cells for row in found)]
    widths = {name: max(len(cells[at]) for cells in lines) for at, name in enumerate(COLUMNS)}
    for name in NARROWER:
        if sum(widths[one] + 2 for one in names) <= width:
            break
        names.remove(name)
    return names


def show(folder: str) -> None:
    """Print the status of a study."""
    found = of_study(folder)
    if sys.stdout.isatty():
        from rich import console

        terminal = console.Console()
        terminal.print(table(found, terminal.width))
    else:
        print(f'{text(found)}\n{counts(found)}')
    for row in [row for row in found if row.state == 'failed' and row.last_lines][:LOGS]:
        print('\n  '.join([f'The log of {row.trial} ends with:', *row.last_lines]))


def as_json(folder: str) -> str:
    """The status of a study as JSON, for programs."""
    return json.dumps([dataclasses.asdict(row) for row in of_study(folder)], indent=2)


def counts(found: Sequence[Row]) -> str:
    """The number of trials in each state, such as '3 done, 1 running'."""
    states = [row.state for row in found]
    return ', '.join(f'{states.count(name)} {name}' for name in state.STATES if name in states)


class Display:
    """What a launcher shows while it waits, on stderr: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, folders: Sequence[pathlib.Path]):
        self._folders = folders
        self._began, self._said, self._slots = time.monotonic(), -1e9, 1
        self._live: Any = None

    def __enter__(self) -> 'Display':
        if sys.stderr.isatty() and os.environ.get('TERM') != 'dumb':
            from rich import console, live

            self._live = live.Live(console=console.Console(stderr=True), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.show(now=True)
            self._live.stop()

    def show(self, now: bool = False) -> None:
        """Show the status of the trials if it is time to, or if something has happened `now`."""
        seconds = time.monotonic() - self._said
        if not now and seconds < (1.0 if self._live is not None else LINE_SECONDS):
            return
        self._said = time.monotonic()
        found = rows(self._folders)
        self._slots = max(self._slots, sum(row.state == 'running' for row in found))
        left = remaining(found, self._slots)
        estimate = f'about {duration(left)} left' if left else ''
        if self._live is not None:
            from rich import console

            found.sort(key=lambda row: _FIRST.index(row.state))  # a long table is cut at its end
            shown = table(found, self._live.console.width)
            self._live.update(console.Group(shown, estimate) if estimate else shown, refresh=True)
            return
        running = [_doing(row) for row in found if row.state == 'running']
        line = ': '.join(filter(None, (', '.join(filter(None, (counts(found), estimate))), ', '.join(running))))
        print(f'[{self._said - self._began:4.0f} s] {line}', file=sys.stderr, flush=True)


def _doing(row: Row) -> str:
    far = row.part if row.phase == 'evaluating' else f'{row.step}/{row.num_steps}'
    return f'{row.trial} {row.phase} {far}'.strip()


def remaining(found: Sequence[Row], slots: int) -> float | None:
    """Estimated seconds until the trials are done, several at a time; None before one is done.

    A trial is expected to take as long as trials of the same variant with other seeds did or, if none is done, as long
    as all did on average.
    """
    done = [row for row in found if row.state == 'done' and row.seconds]
    if not done:
        return None

    def variant(row: Row) -> str:
        return re.sub(r'-s\d+$', '', row.trial)

    lefts = []
    for row in found:
        if row.state in ('running', 'queued'):
            alike = [one.seconds for one in done if variant(one) == variant(row)] or [one.seconds for one in done]
            lefts.append(max(sum(alike) / len(alike) - row.seconds, row.left or 0.0, 0.0))
    return max([sum(lefts) / slots, *lefts], default=None)
