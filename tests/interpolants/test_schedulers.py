"""Solvers against the schedulers of diffusers, whose states record_schedulers.py recorded."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import record_schedulers as recorded
from oracles import from_image

from genbench.interpolants import options, schedules, solvers
from genbench.interpolants.steps import Step

STATES = dict(np.load(pathlib.Path(__file__).parent / 'fixtures' / 'schedulers.npz'))
CASES = {
    'ddim_0.0': ('ddim', options.DdimOptions()),
    'ddim_0.6': ('ddim', options.DdimOptions(eta=0.6)),
    'dpmpp_1m': ('ddim', options.DdimOptions()),
    'dpmpp_2m': ('dpmpp_2m', options.DEFAULT),
    'dpmpp_3m': ('dpmpp_3m', options.Dpmpp3mOptions(curvature='half')),
    'dpmpp_2m_sde': ('dpmpp_2m_sde', options.DEFAULT),
    'dpmpp_2s': ('dpmpp_2s', options.DEFAULT),
    'dpmpp_3s': ('dpmpp_3s', options.DEFAULT),
    'deis_0': ('ddim', options.DdimOptions()),
    **{f'ancestral_{kind}': ('ancestral', options.AncestralOptions(variance=kind))
       for kind in ('small', 'large', 'learned')},
    **{f'deis_{degree}': ('deis', options.DeisOptions(degree=degree, axis='log_rho')) for degree in (1, 2)},
    **{f'unipc_{order}_{variant}': ('unipc', options.UnipcOptions(order=order, variant=variant))
       for order in (1, 2, 3) for variant in ('bh1', 'bh2')},
    'heun': ('heun', options.HeunOptions()),
}  # fmt: skip


def denoiser(schedule):
    def denoise(x_t, t):
        found = from_image(schedule, functools.partial(recorded.image, module=jnp))(x_t, t)
        return found._replace(variance=(1 + recorded.fraction(x_t, jnp)) / 2)

    return denoise


def walk(name, record, schedule, times, x):
    """The states at these times and, unless the last is missing, at zero, as `solvers.solve` reaches them."""
    solver, denoise, noises = solvers.SOLVERS[name], denoiser(schedule), recorded.inputs()[1]
    memory = solver.memory and solver.memory(x)

    @jax.jit
    def move(x, memory, t, s, ahead, noise):
        step = Step(schedule, denoise, x, t, s, lambda: noise, jnp.asarray(len(times)), record, ahead=ahead)
        return solver.move(step, memory)

    states = [x]
    for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x, memory = move(x, memory, *map(jnp.asarray, (t, s, len(times) - 1 - index, noises[index])))
        states.append(x)
    return np.asarray(jnp.stack(states))


@pytest.mark.parametrize('case', CASES)
def test_every_state_is_the_one_of_diffusers(case):
    name, record = CASES[case]
    wanted = STATES[case]
    with jax.enable_x64(True):
        edm = name == 'heun'
        schedule = schedules.edm() if edm else schedules.vp()
        times = recorded.LEVELS if edm else recorded.TIMES
        ends = times if case.startswith('deis') else (*times, 0.0)
        x = jnp.asarray(recorded.inputs()[0]) * (recorded.LEVELS[0] if edm else 1)
        found = walk(name, record, schedule, ends, x)
    whole = slice(-1 if case.endswith('bh1') else None)  # whose last state is NaN, infinity times zero
    assert np.isfinite(found).all() and np.isfinite(wanted[whole]).all()
    np.testing.assert_allclose(found[whole], wanted[whole], rtol=1e-6, atol=1e-6)


def test_every_recorded_scheduler_is_compared():
    assert {*CASES, 'origin'} == {*STATES}
