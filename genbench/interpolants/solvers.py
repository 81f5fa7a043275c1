"""Solvers that carry noise to data: step functions with their needs and costs, and the loops that run them.

The number of steps is a traced integer, so one compiled program serves every step count. Each image's noise is drawn
from its own key, so samples do not depend on their batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.degradations import Mask
from genbench.errors import UserError, did_you_mean
from genbench.interpolants import adaptive, multistep, options, singlestep, steps, stochastic
from genbench.interpolants.inverse import Observation
from genbench.interpolants.options import DEFAULT, FULL, PathOptions
from genbench.interpolants.predictions import Denoiser, guided_at
from genbench.interpolants.schedules import Schedule
from genbench.interpolants.steps import FlowMap, Step

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Solver:
    """A step function and its cost.

    Attributes:
      step: Step → x_s; or, with memory, (Step, memory) → (x_s, memory).
      evaluations: number of steps → network evaluations without guidance, in multiples of the options' `passes`.
      needs: the kind of network that the step needs: 'denoiser', which gives E[x | x_t]; 'endpoint', which gives the
        end of the trajectory through x_t; or 'map', which gives any point of that trajectory.
      options: the record of the solver's options.
      times: Step (without state and network) → the times at which the step evaluates the network. Times with σ = 0 do
        not count.
      memory: start (batch, …) → the memory that the first step gets.
    """

    step: Callable[..., Any]
    evaluations: Callable[[Array], Array]
    needs: str = 'denoiser'
    options: type[PathOptions] = PathOptions
    times: Callable[[Step], tuple[Array, ...]] = lambda step: (step.t,)
    memory: Callable[[Array], Any] | None = None

    def move(self, step: Step, memory: Any) -> tuple[Array, Any]:
        return (self.step(step), None) if self.memory is None else self.step(step, memory)


def _remembering(step: Callable[..., Any], count: int, record: type[PathOptions] = PathOptions) -> Solver:
    """A multistep solver with this many previous predictions."""
    return Solver(step, lambda n: n, options=record, memory=functools.partial(multistep.empty, count))


SOLVERS = {
    'ddim': Solver(steps.ddim, lambda n: n, options=options.DdimOptions),
    'ancestral': Solver(steps.ancestral, lambda n: n, options=options.AncestralOptions),
    'dpmpp_2m': _remembering(multistep.dpmpp_2m, 1),
    'euler': Solver(steps.euler, lambda n: n),  # flow matching's name for ddim
    'heun': Solver(steps.heun, lambda n: 2 * n - 1, options=options.HeunOptions, times=steps.heun_times),
    'dpmpp_3m': _remembering(multistep.dpmpp_3m, 2, options.Dpmpp3mOptions),
    'dpmpp_2s': Solver(singlestep.dpmpp_2s, lambda n: 2 * n - 1, times=singlestep.dpmpp_2s_times),
    'dpmpp_3s': Solver(singlestep.dpmpp_3s, lambda n: 3 * n - 2, times=singlestep.dpmpp_3s_times),
    'unipc': _remembering(multistep.unipc, 3, options.UnipcOptions),
    'deis': _remembering(multistep.deis, 3, options.DeisOptions),
    'dpmpp_2m_sde': _remembering(multistep.dpmpp_2m_sde, 1, options.NoisyOptions),
    'euler_maruyama': Solver(stochastic.euler_maruyama, lambda n: n, options=options.EulerMaruyamaOptions),
    'predictor_corrector': Solver(
        stochastic.predictor_corrector, lambda n: n, options=options.CorrectorOptions, times=stochastic.corrected_times
    ),
    'rk45': Solver(adaptive.rk45, lambda n: 6 * n - 5, options=options.AdaptiveOptions, memory=adaptive.nothing_tried),
    'multistep_consistency': Solver(
        steps.multistep_consistency, lambda n: n, needs='endpoint', options=options.NoisyOptions
    ),
    'flow_map': Solver(steps.flow_map, lambda n: n, needs='map', options=options.FlowMapOptions),
}


def names(kind: str, own: Mapping[str, Solver] = MappingProxyType({})) -> tuple[str, ...]:
    """A family's own solvers, then those for a network of the kind 'denoiser', 'endpoint' or 'map'."""
    fitting = [name for name, solver in SOLVERS.items() if solver.needs == kind and name not in own]
    return (*own, *fitting)


def get(name: str, kind: str, own: Mapping[str, Solver] = MappingProxyType({})) -> Solver:
    """The solver called `name`, if it is the family's own or suits a network of this kind.

    Raises:
      UserError: the name is unknown, or the mathematics rule the solver out; the message says why.
    """
    if name in own:
        return own[name]
    if name not in SOLVERS:
        raise UserError(f'There is no sampler {name!r}. {did_you_mean(name, [*own, *SOLVERS])}')
    solver = SOLVERS[name]
    if solver.needs == kind:
        return solver
    reason = _REASONS.get((solver.needs, kind), f'it needs a network of the kind {solver.needs!r}, but this one is of '
                          f'the kind {kind!r}')  # fmt: skip
    fitting = f' Use {" or ".join(names(kind, own))}.' if names(kind, own) else ''
    raise UserError(f'The sampler {name!r} does not fit here: {reason}.{fitting}')


_REASONS = {  # (the kind that a solver needs, the network's kind) → why the two do not go together
    ('endpoint', 'denoiser'): 'it jumps to the end of the trajectory in one evaluation, but this network predicts the '
    'mean of the clean images instead, which is no sample',
    ('denoiser', 'endpoint'): 'it follows the slope of a trajectory, but this network gives only its end point',
    ('denoiser', 'map'): 'it follows the slope of a trajectory, but this network jumps along it',
    ('map', 'denoiser'): 'it jumps from any time to any other, but this network knows only one time',
    ('denoiser', 'fixed steps'): 'it follows the slope of a trajectory, but this network has learned steps of one '
    'length',
    ('map', 'endpoint'): 'it jumps from any time to any other, but this network only to the end',
}


class Path(NamedTuple):
    """The result of a sampling run and its cost."""

    x: Array
    evaluations: Array


class Trace(NamedTuple):
    """The course of a sampling run: x_t at its n + 1 times, (n + 1, batch, …), and the clean image that the network
    predicted from x_t at the beginning of each step, (n, batch, …)."""

    states: Array
    predictions: Array


class Kept(NamedTuple):
    """An original (batch, …), and a mask that is 1 at its known pixels and 0 elsewhere (None: no known pixels)."""

    image: Array
    known: Array | None = None


def draws(solver: Solver, options: PathOptions = DEFAULT) -> bool:
    """Whether the steps draw noise. The deterministic others follow an ODE."""
    return _own(solver, options).draws


def initial_noise(
    schedule: Schedule, keys: Array, shape: tuple[int, ...], draw: Callable[..., Array] = rng.normal
) -> Array:
    """x at t_max, which is σ(t_max) ε, one image per key. `draw` gives ε."""
    noise = draw(keys, 'start', shape)
    return schedule.sigma(jnp.asarray(schedule.t_max)) * noise


def evaluations(solver: Solver, num_steps: Array | int, options: PathOptions = DEFAULT) -> Array:
    """Network evaluations per image in `num_steps` steps (may be traced), without guidance."""
    passes, taken = options.resample * _own(solver, options).passes, jnp.asarray(num_steps) - _first(num_steps, options)
    return passes * solver.evaluations(taken) + (taken if options.start == 'inverted' else 0)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def guided_evaluations(
    solver: Solver, schedule: Schedule, num_steps: Array | int, options: PathOptions = DEFAULT
) -> Array:
    """The same with guidance, which costs a second evaluation wherever it acts."""
    n = jnp.asarray(num_steps)
    once = evaluations(solver, n, options)
    if options.interval == FULL:
        return 2 * once

    def body(index, count):
        times = solver.times(_step(solver, schedule, index, n, options))
        acts = [(schedule.sigma(t) > 0) & guided_at(schedule, t, options.interval) for t in times]
        count += options.resample * sum(one.astype(int) for one in acts)
        if options.start == 'noised':
            return count
        t, _ = steps.inverted_times(schedule, n - index - 1, n, options.spacing)
        return count + guided_at(schedule, t, options.interval).astype(int)

    return jax.lax.fori_loop(_first(n, options), n, body, once)


def _first(num_steps: Array | int, options: PathOptions) -> Array | int:
    """The index of the first step that is taken."""
    if options.strength == 1:
        return 0
    return num_steps - jnp.maximum(jnp.round(options.strength * jnp.asarray(num_steps)), 1).astype(int)


def solve(
    solver: Solver,
    schedule: Schedule,
    denoise: Denoiser,
    start: Array,
    keys: Array,
    num_steps: Array | int,
    options: PathOptions = DEFAULT,
    flow_map: FlowMap | None = None,
    kept: Kept | None = None,
    observed: Observation | None = None,
) -> Path:
    """Carry `start`, x at t_max, to clean images in `num_steps` steps.

    Args:
      keys: one key per image, (batch,).
      num_steps: may be traced.
      flow_map: for a solver that needs a map.
      kept: the original for a `strength` below 1 or an inverted start; and its known pixels, which the result takes
        from it unchanged.
      observed: what else is known of the images.
    """
    n = jnp.asarray(num_steps)
    first = _first(n, options)
    if kept is not None:
        start = _begun(schedule, denoise, start, n, n - first, options, kept.image)
        if kept.known is not None:
            observed = Observation(Mask(kept.known), kept.image)

    def body(index, state):
        def move(x, memory, keys, denoise=denoise):
            return solver.move(_step(solver, schedule, index, n, options, denoise, x, keys, flow_map), memory)

        if observed is None:
            return move(*state, keys)
        t, s = (schedule.step(ahead, n, options.spacing) for ahead in (n - index, n - index - 1))

        def again(number, state):
            own = rng.numbered(rng.numbered(rng.named(keys, 'tries'), index), number)
            told, after = observed.around(schedule, denoise)
            x, memory = move(*state, own, told)
            x = after(x, s, own)
            back = schedule.alpha(t) / schedule.alpha(s) * x
            back += jnp.sqrt(steps.forward_variance(schedule, t, s)) * rng.normal(own, 'back', x.shape[1:])
            return jnp.where(number + 1 < options.resample, back, x), memory

        return jax.lax.fori_loop(0, options.resample, again, state)

    x, _ = jax.lax.fori_loop(first, n, body, (start, _memory(solver, start)))
    if observed is not None:
        x = observed.finished(x)
    return Path(x, evaluations(solver, n, options))


def _begun(
    schedule: Schedule, denoise: Denoiser, start: Array, n: Array, taken: Array, options: PathOptions, image: Array
) -> Array:
    """The state from which the last `taken` of n steps begin at an original image."""
    if options.start == 'inverted':
        return steps.inverted(schedule, denoise, image, n, taken, options.spacing)
    if options.strength == 1:
        return start
    t, end = schedule.step(taken, n, options.spacing), jnp.asarray(schedule.t_max)
    return schedule.alpha(t) * image + schedule.sigma(t) / schedule.sigma(end) * start


def trace(
    solver: Solver,
    schedule: Schedule,
    denoise: Denoiser,
    start: Array,
    keys: Array,
    num_steps: int,
    first: Array | int = 0,
    options: PathOptions = DEFAULT,
    flow_map: FlowMap | None = None,
) -> Trace:
    """Do the same as `solve`, and keep every state along the way.

    Args:
      num_steps: must not be traced.
      first: the step that begins at `start`; may be traced. States and predictions before it are `start` itself.
    """
    n = jnp.asarray(num_steps)

    def body(state, index):
        x, memory = state
        seen = []

        def observed(x_t, t):
            prediction = denoise(x_t, t)
            seen.append(prediction.x)
            return prediction

        step = _step(solver, schedule, index, n, options, observed, x, keys, flow_map)
        moved = solver.move(step, memory)
        image = seen[0] if seen else step.map(x, step.t, jnp.zeros_like(step.t))
        waiting = index < first
        x, memory = jax.tree.map(lambda old, new: jnp.where(waiting, old, new), state, moved)
        return (x, memory), (x, jnp.where(waiting, start, image))

    _, (states, images) = jax.lax.scan(body, (start, _memory(solver, start)), jnp.arange(num_steps))
    return Trace(jnp.concatenate([start[None], states]), images)


def _memory(solver: Solver, start: Array) -> Any:
    return None if solver.memory is None else solver.memory(start)


def _step(
    solver: Solver, schedule: Schedule, index: Array, n: Array, options: PathOptions,
    denoise: Any = None, x: Any = None, keys: Any = None, flow_map: FlowMap | None = None,
) -> Step:  # fmt: skip
    """Step number `index` of n. Without a state, it only gives access to times."""

    def noise(number: Array | int = 0):
        own = rng.numbered(rng.named(keys, 'steps'), index)
        own = own if isinstance(number, int) and number == 0 else rng.numbered(rng.named(own, 'more'), number)
        drawn = rng.normal(own, 'noise', x.shape[1:])
        return drawn if options.temperature == 1 else options.temperature * drawn

    t, s = (schedule.step(ahead, n, options.spacing) for ahead in (n - index, n - index - 1))
    return Step(schedule, denoise, x, t, s, noise, n, _own(solver, options), flow_map, n - index)


def _own(solver: Solver, options: PathOptions) -> Any:
    """The options as a record of the solver's."""
    return solver.options(**vars(options)) if type(options) is PathOptions else options
