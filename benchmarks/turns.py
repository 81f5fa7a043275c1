"""Sides of a comparison in processes of their own that take turns, so that idle threads of one disturb no other."""

import contextlib
import datetime
import importlib.metadata
import multiprocessing
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Iterator
from typing import Any


def work(build: Callable[..., Any], arguments: tuple, connection: Any) -> None:
    """Build a side (an object with methods), then answer (method, arguments) until None comes."""
    try:
        side = build(*arguments)
        connection.send(None)
        while (order := connection.recv()) is not None:
            method, given = order
            connection.send(getattr(side, method)(*given))
    except Exception as error:
        connection.send(error)
        raise


class Side:
    """A side in another process: `side.method(…)` runs there."""

    def __init__(self, build: Callable[..., Any], *arguments: Any):
        self._end, far = multiprocessing.get_context('spawn').Pipe()
        context = multiprocessing.get_context('spawn')
        self._process = context.Process(target=work, args=(build, arguments, far), daemon=True)
        self._process.start()
        self._answer()

    def _answer(self) -> Any:
        answer = self._end.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def ask(*given: Any) -> Any:
            self._end.send((method, given))
            return self._answer()

        return ask

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._end.send(None)
        self._process.join(30)


@contextlib.contextmanager
def together(builders: dict[str, tuple]) -> Iterator[dict[str, Side]]:
    """{name: (build, arguments …)} → {name: Side}, closed at the end."""
    sides: dict[str, Side] = {}
    try:
        for name, (build, *arguments) in builders.items():
            sides[name] = Side(build, *arguments)
        yield sides
    finally:
        for side in sides.values():
            side.close()


def measure(sides: dict[str, Side], rounds: int, *given: Any) -> dict[str, list[float]]:
    """Seconds that `side.run(*given)` says, `rounds` times in turns; the order alternates."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side.run(*given)
    for number in range(rounds):
        for name in list(sides) if number % 2 else reversed(list(sides)):
            found[name].append(sides[name].run(*given))
    return found


def ratios(found: dict[str, list[float]], mine: str) -> dict[str, str]:
    """The others' seconds over mine: median of neighbours, least and most; above 1, mine is faster."""
    table = {}
    for name, seconds in found.items():
        if name != mine:
            each = [theirs / ours for theirs, ours in zip(seconds, found[mine], strict=True)]
            table[name] = f'{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})'
    return table


def machine(libraries: tuple[str, ...] = ('jax', 'jaxlib', 'flax', 'torch')) -> str:
    """Date, cores, processor, versions and load, for the head of a table."""
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in libraries)
    return (
        f'{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores of {processor()}, Python '
        f'{platform.python_version()}, {versions}. Load average at the start {os.getloadavg()[0]:.1f}.'
    )


def processor() -> str:
    """What the machine calls its processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return next(line for line in lines if line.startswith('model name')).partition(':')[2].strip()
    return platform.processor() or platform.machine()


def write(path: str, lines: list[str]) -> None:
    """A Markdown file, if there is a path."""
    if path:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text('\n'.join(lines) + '\n')
