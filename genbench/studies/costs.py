"""What a training run costs, found before it runs: operations, parameters, and seconds per step.

Operations are counted in the traced programs (`genbench.flops`). The count is the same on every machine, and equals the
one in summary.json after the run. The work runs in a separate process, because an accelerator belongs to the first
process that asks for it.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

from genbench import config as configs
from genbench import flops
from genbench.config import Config
from genbench.data import opening, sources
from genbench.errors import UserError
from genbench.families import stages
from genbench.reading import read_json
from genbench.studies import identity
from genbench.training.files import write_atomically

TIMED_STEPS, TIMED_SECONDS = 40, 3.0  # how many steps to time, or for how long


@dataclasses.dataclass(frozen=True)
class Request:
    """A run whose cost is wanted.

    Attributes:
      lent: configs of runs that it builds on, by the family's names for them. Others are opened from their folders.
      width: the key to scale until the number of parameters is nearest to `parameters`; '' to scale nothing.
      multiple: widths are multiples of this.
      cores: processors on which to time steps; 0 to time none.
    """

    config: Config
    lent: Mapping[str, Config] = dataclasses.field(default_factory=dict)
    width: str = ''
    parameters: float = 0.0
    multiple: int = 1
    cores: int = 0

    def values(self) -> dict[str, Any]:
        config, lent = configs.plain(self.config), {name: configs.plain(one) for name, one in self.lent.items()}
        return {**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
                'config': config, 'lent': lent}  # fmt: skip

    @property
    def key(self) -> str:
        """Cache key: the same for runs that cost the same."""
        own = {key: value for key, value in configs.identity(self.config).items() if key != 'train.seed'}
        lent = {name: configs.identity(one) for name, one in self.lent.items()}
        timed = [self.cores, os.uname().nodename if self.cores else '']
        code = identity.code(self.config.family.modules)
        rest = [self.width, self.parameters, self.multiple, timed, code, metadata.version('jax')]
        return configs.digest([own, lent, rest])


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
      parameters: number of scalars that training updates.
      stages: for each stage, the step at which it ends (None for the end of the run) and the operations of each step in
        one period.
      beginnings: for each stage, the operations that create its first state, and for the first one those that prepare
        data, such as sampling a teacher; () for none.
      width: the value that the request's `width` key should have.
      step_seconds: for each stage, the mean time of a step over a period, after compilation; 0 if not timed.
      batches: for each stage, the batch size in images.
    """

    parameters: int
    stages: Sequence[tuple[int | None, Sequence[float]]]
    width: int = 0
    step_seconds: Sequence[float] = ()
    beginnings: Sequence[float] = ()
    batches: Sequence[int] = ()

    def flops(self, steps: int) -> float:
        """Operations of a run of this many steps."""
        return self._spent(steps, [period for _, period in self.stages], self.beginnings)

    def seconds(self, steps: int) -> float:
        """Seconds that this many steps take, after compilation."""
        return self._spent(steps, [[seconds] for seconds in self.step_seconds])

    def images(self, steps: int) -> float:
        """Images that this many steps see."""
        return self._spent(steps, [[size] for size in self.batches])

    def _spent(self, steps: int, periods: Sequence[Sequence[float]], beginnings: Sequence[float] = ()) -> float:
        total, first = 0.0, 0
        for (until, _), period, beginning in zip(
            self.stages, periods, beginnings or [0.0] * len(self.stages), strict=True
        ):
            if steps <= first:
                break
            last = steps if until is None else min(steps, until)
            total += beginning
            total += _operations(period, last) - _operations(period, first)
            first = last
        return total

    def steps_for(self, most: float, spent: Callable[[int], float] | None = None) -> int:
        """The largest number of steps within a budget. `spent` is `flops` by default, or `seconds` or `images`."""
        spent, high = spent or self.flops, 1
        while spent(high) <= most and high < 2**40:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if spent(middle) <= most else (low, middle)
        return low


def _operations(period: Sequence[float], steps: int) -> float:
    whole, rest = divmod(steps, len(period))
    return whole * sum(period) + sum(period[:rest])


def estimate(requests: Sequence[Request]) -> list[Cost | str]:
    """The cost of each run, or one line that says why it has none. Costs in the user's cache are not recomputed."""
    folder = sources.cache_dir() / 'costs'
    keys = [request.key for request in requests]
    missing = {key: request for key, request in zip(keys, requests, strict=True) if not (folder / key).is_file()}
    failed: dict[str, str] = {}
    together = {key: request for key, request in missing.items() if not request.cores}
    timed = [{key: request} for key, request in missing.items() if request.cores]  # each in its own process
    for chosen in [*([together] if together else ()), *timed]:
        for key, answer in zip(chosen, _ask(list(chosen.values())), strict=True):
            if 'error' in answer:
                failed[key] = answer['error']
            else:
                write_atomically(folder / key, json.dumps(answer))
    return [failed[key] if key in failed else _cached(folder / key) for key in keys]


def _cached(path: pathlib.Path) -> Cost:
    shape = {'parameters': int, 'stages': [[(int, float, None, [float])]], 'width': int, 'step_seconds': [float],
             'beginnings': [float], 'batches': [int]}  # fmt: skip
    found = read_json(path, shape, 'Delete it; genbench will measure the cost again.')
    return Cost(**{key: found[key] for key in shape})


def _ask(requests: Sequence[Request]) -> list[dict[str, Any]]:
    alone = {} if requests[0].cores else {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = pathlib.Path(folder) / 'asked.json', pathlib.Path(folder) / 'answered.json'
        asked.write_text(json.dumps([request.values() for request in requests]))
        command = [sys.executable, '-m', 'genbench.studies.costs', str(asked), str(answered)]
        done = subprocess.run(command, env={**os.environ, **alone}, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, check=False)  # fmt: skip
        if done.returncode:
            raise RuntimeError(f'The process that estimates costs failed with {done.returncode}:\n{done.stderr}')
        return json.loads(answered.read_text())


def main(asked: str, answered: str) -> None:
    """Read requests from one file and write the answers to another."""
    from genbench import startup

    requests = json.loads(pathlib.Path(asked).read_text())
    cores = max(request['cores'] for request in requests)
    if cores and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    startup.prepare(functools.partial(_devices, requests[0]) if cores else None)
    answers: list[dict[str, Any]] = []
    for values in requests:
        config = configs.resolve(configs.plain(values['config']))
        lent = {name: configs.resolve(configs.plain(one)) for name, one in values['lent'].items()}
        try:
            answers.append(dataclasses.asdict(_measure(Request(**{**values, 'config': config, 'lent': lent}))))
        except UserError as error:
            answers.append({'error': str(error)})
        except Exception as error:  # a trial that cannot be traced gets this message, the others their answers
            told = (str(error) or type(error).__name__).splitlines()[0]
            answers.append({'error': f'its training step cannot be built ({type(error).__name__}: {told}).'})
    pathlib.Path(answered).write_text(json.dumps(answers))


def _devices(request: Mapping[str, Any], most: int) -> int:
    from genbench.training import mesh

    return mesh.fitting(configs.resolve(configs.plain(request['config'])), most)


def _measure(request: Request) -> Cost:
    from genbench.training import state as states

    width = 0
    if request.width:
        width = _fitting_width(request)
        request = dataclasses.replace(request, config=with_value(request.config, request.width, width))
    ready = _prepared(request)
    family, spans = ready.family, stages.spans(ready.family)
    parts, before = [], None
    for span in spans:
        blueprint = states.blueprint(family, span.stage.name)
        parts.append(_stage(ready, blueprint, span, before, bool(request.cores)))
        before = blueprint
    beginnings = [part.beginning for part in parts]
    if ready.shapes:
        beginnings[0] += _preparing(ready)
    periods = [(None if span is spans[-1] else span.end, part.period) for span, part in zip(spans, parts, strict=True)]
    return Cost(
        _parameters(family), periods, width, [part.seconds for part in parts], beginnings,
        [span.batch_size for span in spans],
    )  # fmt: skip


def with_value(config: Config, key: str, value: Any) -> Config:
    """The config with another value for one key."""
    text = value if isinstance(value, str) else repr(value)
    return configs.resolve(configs.plain(config), [f'{key}={text}'])


def _prepared(request: Request) -> Any:
    """The run on random images. Runs that it builds on are known by their shapes, because they may be untrained."""
    from genbench.training import lending
    from genbench.training import mesh as meshes
    from genbench.training.prepared import prepare

    config, loans = request.config, lending.promised(request.config, request.lent)
    opening.spec(config.data)  # a guess of its shapes would match budgets that do not hold
    mesh = meshes.make_mesh(config.mesh if request.cores else None)
    return prepare(config, loans, mesh=mesh, on_noise=True)


def _preparing(ready: Any) -> float:
    """Operations of the data that a run prepares for itself, which needs the number of rows of the data set."""
    rows = sources.count(opening.open_data(ready.config.data), ready.config.data.train_split)
    found = ready.preparing(rows)
    if found is None:
        raise UserError('the FLOPs of the data that it prepares cannot be counted.')
    return found


def _parameters(family: Any) -> int:
    """Number of scalars in the networks that the last stage trains."""
    from genbench.training import state as states

    last = states.blueprint(family, family.stages[-1].name)
    moved = {name for update in last.family.updates for name in update.networks}
    params = last.shapes['params']
    return sum(states.count(params[name]) for name in moved)


def _fitting_width(request: Request) -> int:
    """The multiple whose parameter count is nearest to the target, by bisection."""

    from genbench.training.prepared import prepare

    first = _prepared(request)

    def count(multiples: int) -> int:
        config = with_value(request.config, request.width, multiples * request.multiple)
        return _parameters(prepare(config, first.loans, mesh=first.mesh, on_noise=True).family)

    high = 1
    while count(high) < request.parameters and high < 2**12:
        high *= 2
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < request.parameters else (low, middle)
    return request.multiple * min((low, high), key=lambda width: abs(count(width) - request.parameters))


class _Stage(NamedTuple):
    """Operations of each step in a period and of the stage's first state, and seconds per step."""

    period: list[float]
    beginning: float
    seconds: float


def _stage(ready: Any, blueprint: Any, span: stages.Span, before: Any, timed: bool) -> _Stage:
    """The cost of a stage. `before` is the blueprint of the previous stage."""
    import jax

    from genbench import rng
    from genbench.training import placement
    from genbench.training.step import active_updates, make_step

    mesh, feed, constants = ready.mesh, ready.feed, ready.places
    shape = placement.abstract_state(blueprint, mesh)
    places = placement.shardings(shape), placement.shardings(constants.lent)
    program = make_step(blueprint, feed, rng.root(0, 'training'), *places)
    period = math.lcm(*(update.every for update in blueprint.family.updates))
    actives = [active_updates(blueprint, step) for step in range(period)]
    inputs = feed.inputs(span.first)
    traced = {active: program.trace(shape, constants, inputs, active) for active in set(actives)}
    counted = {active: _counted(one) for active, one in traced.items()}

    def begin(key: Any, constants: Any, inputs: Any, state: Any) -> Any:
        previous = None if before is None else before.bind_state({**state, 'lent': constants.lent})
        rows = feed.batch(constants.feed, inputs, blueprint.family.spec.shape)
        return blueprint.initial_state(key, rows, constants.lent, previous)

    state = None if before is None else before.shapes
    beginning = _counted(jax.jit(begin).trace(jax.random.key(0), constants, inputs, state))
    seconds = _seconds(ready, blueprint, shape, program, actives, inputs) if timed else 0.0
    return _Stage([counted[active] for active in actives], beginning, seconds)


def _counted(traced: Any) -> float:
    try:
        return flops.count(traced.jaxpr)
    except flops.UnknownError as error:
        raise UserError(f'its FLOPs cannot be counted: {error}.') from None


def _seconds(ready: Any, blueprint: Any, shape: Any, program: Any, actives: Sequence[Any], inputs: Any) -> float:
    """Seconds per step, averaged over whole periods, after one period that compiles."""
    import jax
    import jax.numpy as jnp

    from genbench import rng
    from genbench.families.base import Networks
    from genbench.training import placement

    def build() -> Any:
        networks = Networks(blueprint.family.networks(rng.for_networks(0)))
        return blueprint.fresh_state(blueprint.params(networks), blueprint.aux(networks))

    places = ready.places
    lent = jax.jit(lambda: jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), places.lent),
                   out_shardings=placement.shardings(places.lent))()  # fmt: skip
    constants = places._replace(feed=jax.tree.map(lambda leaf, place: jax.device_put(leaf, place.sharding),
                                                  ready.feed.constants, places.feed), lent=lent)  # fmt: skip
    state, done, began = jax.jit(build, out_shardings=placement.shardings(shape))(), -len(actives), 0.0
    while done < TIMED_STEPS and (done <= 0 or time.monotonic() - began < TIMED_SECONDS):
        for active in actives:
            state, _ = program(state, constants, inputs, active)
        jax.block_until_ready(state)
        done += len(actives)
        began = time.monotonic() if done == 0 else began
    return (time.monotonic() - began) / done


if __name__ == '__main__':
    main(*sys.argv[1:])
