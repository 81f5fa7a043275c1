"""The compiled steps of a stage, made while the networks are still being initialised where that is possible."""

import concurrent.futures
import functools
from typing import Any

import jax

from genbench.training import telemetry
from genbench.training.state import State

Active = tuple[str, ...]  # names of the updates that run together


class Programs:
    """One program for each set of updates that run together, and for each number of steps in a call.

    Args:
      step: what `make_step` returns.
      state: shapes, types and places of the state.
      constants: of the feed.
      debug: compile when called, for only so can jax run a step again operation by operation; FLOPs are not counted.
    """

    def __init__(self, step: Any, state: State, constants: Any, debug: bool = False):
        self._step, self._state, self._constants, self._debug = step, state, constants, debug
        self._compiled: dict[tuple[Active, int], tuple[Any, float | None]] = {}
        self._ahead: dict[tuple[Active, int], concurrent.futures.Future] = {}

    def begin(self, inputs: Any, active: Active) -> None:
        """Compile in the background; joined processes compile in the same order and leave this out."""
        if jax.process_count() == 1 and not self._debug:
            with_one_thread = concurrent.futures.ThreadPoolExecutor(1)
            self._ahead[active, steps_in(inputs)] = with_one_thread.submit(self._compile, inputs, active)
            with_one_thread.shutdown(wait=False)

    def get(self, inputs: Any, active: Active) -> tuple[Any, float | None]:
        """(a function of (state, constants, inputs), its FLOPs, None where they are not known).

        It compiles, or waits for `begin`, the first time.
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
    """How many steps a call with these inputs makes."""
    return len(inputs) if isinstance(inputs, list) else 1
