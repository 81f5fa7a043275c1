"""`genbench verify --all`: run the recipes of the ledger that fit into some minutes, and say why others were not run.

Each recipe runs as a process of its own, which is asked to stop and save when the time is over or this process is told
to end.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from genbench.config import Config
from genbench.data import opening
from genbench.errors import INTERRUPTED, UserError
from genbench.reading import read_json_if_any
from genbench.studies import costs, ledger, records, verify
from genbench.studies.launchers import local
from genbench.training import runs

RUNS = pathlib.Path('runs/baselines')
FASTEST = 2e11  # FLOP/s that one core of a CPU hardly exceeds; what is too long even so is not timed
GRACE = 120.0  # seconds that a run has to save itself
STOPPED = 'stopped and saved'
MISSED = 3  # status of a process that ran through and missed the tolerance; Python's own for an exception is 1
PROGRAM = f'import sys; from genbench import cli; sys.exit({{1: {MISSED}}}.get(status := cli.main(), status))'
OUTCOMES = {
    0: ledger.REPRODUCED, 1: 'failed; the error is above', MISSED: ledger.GAP,
    2: 'refused; the reason is above', INTERRUPTED: STOPPED, -signal.SIGTERM: STOPPED,  # while it was scored
}  # fmt: skip
Say = Callable[[str], None]


@dataclasses.dataclass
class Entry:
    """A row, and what became of it.

    Attributes:
      seconds: estimate of what is left to train; infinite if it is not known.
      least: whether this is a lower bound, from the number of operations.
      unfinished: whether a run of it has been stopped and saved.
      done: the outcome of its run; '' if it was not run.
      why: why it was not run.
      took: seconds.
    """

    row: ledger.Row
    seconds: float = math.inf
    least: bool = False
    unfinished: bool = False
    done: str = ''
    why: str = ''
    took: float = 0.0

    @property
    def about(self) -> str:
        return f'{"at least" if self.least else "about"} {records.span(self.seconds)}'


def run(
    rows: Iterable[ledger.Row], minutes: float, say: Say, *, go_on: bool = False, record: bool = False,
    data_dir: str = '',
) -> list[Entry]:  # fmt: skip
    """Run what fits, the shortest first, and say at the end what was done and what was not.

    Args:
      minutes: that all runs may take together; estimating how long they take comes on top.
      go_on: go on with unfinished runs first, whether or not what is left of them fits.
      record: keep the results as evidence.

    Returns:
      An entry for each row that has a recipe.
    """
    entries = [_entry(row, data_dir) for row in rows if row.config]
    waiting = [entry for entry in entries if not entry.why]
    say(f'Estimating how long {len(waiting)} recipes take; what is known of an earlier time is used again.')
    _estimate(waiting, 60 * minutes, data_dir)
    stopped, ends = False, time.monotonic() + 60 * minutes
    for entry in sorted(waiting, key=lambda one: (not (go_on and one.unfinished), one.seconds)):
        left = ends - time.monotonic()
        if stopped:
            entry.why = entry.why or 'Ctrl-C or SIGTERM came first'
        elif left <= 0 or (entry.seconds > left and not (go_on and entry.unfinished)):
            more = '; --continue goes on with its run' if entry.unfinished else ''
            entry.why = entry.why or f'needs {entry.about}, and {records.span(max(left, 0))} are left{more}'
        elif not entry.why:
            say(f'{entry.row.id}: {entry.about}')
            stopped = _verify(entry, left, record, data_dir)
    for line in table(entries):
        say(line)
    return entries


def _verify(entry: Entry, left: float, record: bool, data_dir: str) -> bool:
    """Run a recipe for at most `left` seconds. True if Ctrl-C or SIGTERM ended it earlier."""
    flags = [*(['--record'] if record else []), *(['--data-dir', data_dir] if data_dir else [])]
    began = time.monotonic()
    status, told = start(['verify', entry.row.id, *flags], left)
    entry.done, entry.took = OUTCOMES.get(status, f'ended with status {status}'), time.monotonic() - began
    return told or (status == INTERRUPTED and entry.took < left)


def status(entries: Sequence[Entry]) -> int:
    """The exit status: 75 if a run was stopped, 1 if one missed its tolerance or failed, otherwise 0."""
    found = {entry.done for entry in entries} - {'', ledger.REPRODUCED}
    return INTERRUPTED if STOPPED in found else int(bool(found))


def table(entries: Sequence[Entry]) -> list[str]:
    """A line for each row: what was done, how long it took, or why it was not run."""
    lines = [
        (one.row.id, one.done or 'skipped', records.span(one.took) if one.done else '', one.why)
        for one in sorted(entries, key=lambda one: not one.done)
    ]
    widths = [max(len(line[column]) for line in lines) if lines else 0 for column in range(4)]
    body = ['  '.join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    done = [one for one in entries if one.done]
    reproduced = sum(one.done == ledger.REPRODUCED for one in done)
    return ['', *body, '', f'{len(done)} run, {reproduced} of them reproduced, {len(entries) - len(done)} skipped.']


def _entry(row: ledger.Row, data_dir: str) -> Entry:
    """The row, with the reason not to run it if there is one that costs nothing to find."""
    entry, found = Entry(row), ledger.evidence(row)
    if found is not None and not records.outdated(row, found):
        entry.why = f'{ledger.status(row, found)}; {records.renewal(row)} measures it again'
        return entry
    finished = [bool(summary.get('complete')) for summary in _summaries(row)]
    entry.unfinished = sum(_steps(row)) > 0 and not all(finished)
    begun = [folder for folder in _folders(row) if runs.Folder(folder).manifest.is_file()]
    if not all(map(verify.by_this_code, begun)):
        entry.why = f'other code began {RUNS / row.id}; move it aside to train anew'
        return entry
    try:
        opening.open_data(_resolved(row, data_dir).data)
    except UserError as error:
        entry.why = str(error)
    return entry


def _resolved(row: ledger.Row, data_dir: str) -> Config:
    return verify.resolve(row, *([f'data.data_dir={data_dir}'] if data_dir else []))


def _estimate(entries: Sequence[Entry], limit: float, data_dir: str) -> None:
    """Fill in `seconds`, or `why` if the costs cannot be found.

    A row takes as long as its evidence says, if that is from this kind of machine. For the others, steps are timed if
    their number of operations does not rule them out. The time of an evaluation is only known from evidence. Steps that
    an unfinished run has behind it do not count.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    unknown = []
    for entry in entries:
        found = ledger.evidence(entry.row)
        entry.seconds = _recorded(found, cores, _left(entry.row, data_dir) if found else 1.0)
        if not math.isfinite(entry.seconds):
            unknown.append(entry)
    requests = [costs.Request(_resolved(entry.row, data_dir)) for entry in unknown]
    for entry, request, cost in zip(unknown, requests, costs.estimate(requests) if requests else [], strict=True):
        if isinstance(cost, str):
            entry.why = cost
            continue
        steps = request.config.train.num_steps
        least = 0.0 if local.has_accelerator() else cost.flops(steps) / (FASTEST * cores)
        timed: Any = costs.estimate([dataclasses.replace(request, cores=cores)])[0] if least <= limit else ''
        entry.least = isinstance(timed, str)
        entry.seconds = least if isinstance(timed, str) else timed.seconds(steps)
        entry.seconds *= entry.row.seeds * _left(entry.row, data_dir)


def _recorded(found: Mapping[str, Any] | None, cores: int, left: float = 1.0) -> float:
    """What this part of the training and the evaluation take, by evidence of as many cores of the same processor."""
    seconds = (found or {}).get('seconds') or {}
    parts = [part * (left if key == 'training' else 1.0) for key, part in seconds.items() if part is not None]
    same = found is not None and (found.get('cores'), found.get('processor')) == (cores, records.processor())
    return sum(parts) if parts and same else math.inf


def _left(row: ledger.Row, data_dir: str) -> float:
    """The part of a row's training that is still to do: 1 before it has begun."""
    steps = _resolved(row, data_dir).train.num_steps
    return sum(max(0.0, 1 - done / steps) for done in _steps(row)) / row.seeds


def _summaries(row: ledger.Row) -> list[dict[str, Any]]:
    """summary.json of each run of a row, one for each seed; {} for a run that has not been saved."""
    shape = {'complete': bool, 'step': int}
    return [read_json_if_any(folder / 'summary.json', shape) or {} for folder in _folders(row)]


def _folders(row: ledger.Row) -> list[pathlib.Path]:
    folder = RUNS / row.id
    return [folder / f'seed_{seed}' for seed in range(row.seeds)] if row.seeds > 1 else [folder]


def _steps(row: ledger.Row) -> list[int]:
    return [summary.get('step', 0) for summary in _summaries(row)]


def start(words: Sequence[str], seconds: float) -> tuple[int, bool]:
    """Run genbench with these words, and ask it to stop after some seconds.

    Returns:
      The exit status, MISSED where `genbench verify` has 1, and whether this process was told to end meanwhile. SIGTERM
      goes on to the other process, which saves.
    """
    told: list[int] = []
    process = subprocess.Popen([sys.executable, '-c', PROGRAM, *words])

    def pass_on(number: int, frame: Any) -> None:
        told.append(number)
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        return _end(process, seconds), bool(told)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: 'subprocess.Popen[bytes]', seconds: float) -> int:
    for limit, ask in ((seconds, signal.SIGTERM), (GRACE, signal.SIGKILL)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return _wait(process, limit)
        process.send_signal(ask)
    return process.wait()


def _wait(process: 'subprocess.Popen[bytes]', limit: float) -> int:
    """Wait, also through Ctrl-C, which the process gets as well and answers by saving."""
    while True:
        try:
            return process.wait(limit)
        except KeyboardInterrupt:
            limit = GRACE
