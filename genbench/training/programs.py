"""The compiled steps of a stage. Where possible, they compile while the networks are being initialised."""

import concurrent.futures
import functools
from typing import Any

import jax

from genbench.training import telemetry
from genbench.training.state import State

Active = tuple[str, ...]  # names of the updates that run together


class Programs:
    """One program for each set of updates that run together and each number of steps in a call.

    Args:
      step: the result of `make_step`.
      state: shapes, types and placements of the state.
      constants: of the feed.
      debug: compile on call, so that jax can repeat a step operation by operation. FLOPs are not counted.
    """

    def __init__(self, step: Any, state: State, constants: Any, debug: bool = False):
        self._step, self._state, self._constants, self._debug = step, state, constants, debug
        self._compiled: dict[tuple[Active, int], tuple[Any, float | None]] = {}
        self._ahead: dict[tuple[Active, int], concurrent.futures.Future] = {}

    def begin(self, inputs: Any, active: Active) -> None:
        """Compile in the background. Joined processes skip this, because they must compile in the same order."""
        if jax.process_count() == 1 and not self._debug:
            with_one_thread = concurrent.futures.ThreadPoolExecutor(1)
            self._ahead[active, steps_in(inputs)] = with_one_thread.submit(self._compile, inputs, active)
            with_one_thread.shutdown(wait=False)

    def get(self, inputs: Any, active: Active) -> tuple[Any, float | None]:
        """(a function of (state, constants, inputs), its FLOPs or None if unknown).

        The first call compiles, or waits for the compilation that `begin` started.
        """
        key = active, steps_in(inputs)
        if key not in self._compiled:
            begun = self._ahead.pop(key, None)
            self._compiled[key] = begun.result() if begun else self._compile(inputs, active)
        return self._compiled[key]

    def _compile(self, inputs: Any, active: Active) -> tuple[Any, float | None]:
        if self._debug:
            return lambda *arguments: self._step(*arguments, active), None
        traced = self._step.trace(self._state, self._constants, inputs, active)
        return functools.partial(traced.lower().compile(), self._step.root), telemetry.flops_of(traced)


def steps_in(inputs: Any) -> int:
    """The number of steps in a call with these inputs."""
    return len(inputs) if isinstance(inputs, list) else 1
