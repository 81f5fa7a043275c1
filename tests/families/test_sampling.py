"""Samplers of path families: what options do to samples and cost, and families that bring solvers of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.errors import UserError
from genbench.evaluation import grid
from genbench.families.base import Sampler
from genbench.families.paths import PathFamily
from genbench.interpolants import schedules, solvers
from genbench.interpolants.options import NOT_NEGATIVE, PathOptions, number
from genbench.interpolants.solvers import Solver
from genbench.training import samplers

LABELS = {'label': jnp.array([0, 1, 2])}


@functools.cache
def compiled(family, blueprint):
    return jax.jit(lambda state, keys, given, one: family.sample(blueprint.bind_state(state), keys, given, one))


def drawn(built, keys, text, given=LABELS):
    family, blueprint, state = built
    sampler = samplers.parse(text, family)
    bound = {name: state[name] for name in ('params', 'aux', 'averages')}
    samples = compiled(family, blueprint)(bound, keys, given, sampler)
    assert int(samples.evaluations) == family.evaluations(sampler)
    return np.asarray(samples.images), int(samples.evaluations)


PRICES = {
    'ddim:6:guidance=2': 12,
    'ddim:6:guidance=0,renoise=plain': 12,  # CFG++ with λ = 1 needs the noise of both
    'heun:6:guidance=2': 22,
    'ddim:5:guidance=2,interval=0.2-0.8': 5 + 2,  # t = 0.199 … 0.995: σ / α is 0.33, 0.73, 1.4, 3.1 and 126
    'ddim:5:guidance=2,interval=0.2-inf': 5 + 5,
    'dpmpp_2m:5:guidance=2,interval=0.7-4': 5 + 3,
}


@pytest.mark.parametrize('text', PRICES)
def test_evaluations_are_known_before_sampling(text, built, keys):
    assert drawn(built('diffusion', True), keys(3), text)[1] == PRICES[text]


HEARD = {  # with an option → without
    'ddim:3:eta=1': 'ddim:3',
    'heun:3:churn=3': 'heun:3',
    'ddim:3:spacing=rho7': 'ddim:3',
    'ddim:3:temperature=0.5': 'ddim:3',
    'ddim:3:guidance=4': 'ddim:3',
    'ddim:3:guidance=4,renoise=plain': 'ddim:3:guidance=4',
    'ddim:3:guidance=0,renoise=plain': 'ddim:3',
    'ddim:3:guidance=4,negative=label=1': 'ddim:3:guidance=4',
    'ddim:3:guidance=30,threshold=static': 'ddim:3:guidance=30',
}


@pytest.mark.parametrize('text', HEARD)
def test_every_option_is_heard(text, built, keys):
    with_it, without = (drawn(built('diffusion', True), keys(3), one)[0] for one in (text, HEARD[text]))
    assert (with_it != without).any()


def test_to_move_away_from_what_is_given_is_to_stay(built, keys):
    given = {'label': jnp.full(3, 1)}
    plain, _ = drawn(built('diffusion', True), keys(3), 'ddim:3', given)
    same, _ = drawn(built('diffusion', True), keys(3), 'ddim:3:guidance=3,negative=label=1', given)
    np.testing.assert_array_equal(same, plain)


def test_without_temperature_nothing_is_left_to_chance(built, keys):
    for name, text in (('diffusion', 'ancestral:3'), ('normalizing_flow', 'direct:1'), ('gan', 'direct:1')):
        cold, _ = drawn(built(name), keys(3), f'{text}:temperature=0', None)
        assert (cold == cold[0]).all() and (drawn(built(name), keys(3), text, None)[0] != cold).any()


def originals(family):
    """Images, as sampling is given them, their levels, and a mask of their upper half."""
    levels = np.random.default_rng(0).integers(0, family.spec.levels, (3, *family.spec.shape))
    known = np.zeros((3, *family.spec.shape[:2], 1), np.float32)
    known[:, : family.spec.shape[0] // 2] = 1
    return levels, {'original': family.spec.dequantise(jnp.asarray(levels)), 'known': jnp.asarray(known)}


@pytest.mark.parametrize('text', ['ddim:3', 'dpmpp_2m:3:resample=2', 'heun:4:strength=0.5,guidance=2'])
def test_known_pixels_come_out_as_they_are(text, built, keys):
    levels, given = originals(built('diffusion', True)[0])
    images, _ = drawn(built('diffusion', True), keys(3), text, {**LABELS, **given})
    half = levels.shape[1] // 2
    np.testing.assert_array_equal(images[:, :half], levels[:, :half])
    assert (images[:, half:] != levels[:, half:]).any()


@pytest.mark.parametrize(
    ('text', 'names', 'why'),
    [
        ('rk45:3', ('original', 'known'), 'rk45 takes other steps for each image and cannot start from an original'),
        ('ddim:3:strength=0.5', (), 'strength needs an image to start from'),
        ('ddim:3:resample=2', (), 'resample needs an image to start from'),
        ('ddim:3', ('known',), 'known needs an image to start from'),
        ('ddim:3:resample=2', ('original',), 'resample needs --given known'),
        ('ddim:3', ('original',), '--given original has no effect alone; add strength=SHARE'),
    ],
)
def test_an_original_that_is_not_there_or_not_used_is_asked_for(text, names, why, built, keys):
    _, given = originals(built('diffusion', True)[0])
    with pytest.raises(UserError, match=why):
        drawn(built('diffusion', True), keys(3), text, {**LABELS, **{name: given[name] for name in names}})


@dataclasses.dataclass(frozen=True)
class LeapOptions(PathOptions):
    """Of a solver that a family brings."""

    push: float = number(1.0, NOT_NEGATIVE)


def leap(step):
    """Two jumps in one step, and a push at the end."""
    middle = (step.t + step.s) / 2
    return step.options.push * step.map(step.map(step.x_t, step.t, middle), middle, step.s)


class Toy(PathFamily):
    """The exact flow map of data N(0, 0.5² I), which needs no network."""

    name = 'toy'
    kind = 'map'
    guidable = False
    solvers = {
        'leap': Solver(leap, lambda n: 2 * n, needs='map', options=LeapOptions,
                       times=lambda step: (step.t, (step.t + step.s) / 2)),
        'heun': solvers.SOLVERS['heun'],
    }  # fmt: skip

    def flow_map(self, networks, given, sampler):
        def spread(t):
            return jnp.sqrt(jnp.square(self.schedule.alpha(t) / 2) + jnp.square(self.schedule.sigma(t)))

        return lambda x, t, s: x * schedules.expand(spread(s) / spread(t), x)


@pytest.fixture
def toy(resolve, built):
    return Toy(resolve('flow_matching'), built('flow_matching')[0].spec)


def test_a_family_brings_solvers_beside_the_registry(toy):
    assert Toy.samplers == ('leap', 'heun', 'flow_map') and 'leap' not in solvers.SOLVERS
    assert samplers.default(toy).name == 'leap'
    assert samplers.parse('leap:2:push=3', toy) == Sampler('leap', 2, 0.0, LeapOptions(push=3.0))
    assert [cell.sampler.options.changed for cell in grid.cells(['push=2,3'], toy, toy.config.evaluation)] == [
        {'push': 2.0}, {'push': 3.0}
    ]  # fmt: skip
    for wrong, why in (('ddim', 'Use leap or heun or flow_map'), ('leep', 'Did you mean leap')):
        with pytest.raises(UserError, match=why):
            toy.check_sampler(wrong)
    with pytest.raises(UserError, match="'push'; flow_map takes temperature, spacing, threshold"):
        samplers.parse('flow_map:1:push=2', toy)


@pytest.mark.parametrize(('text', 'cost'), [('flow_map:1', 1), ('flow_map:3', 3), ('leap:2', 4)])
def test_a_flow_map_is_sampled_and_traced_in_any_number_of_jumps(text, cost, toy, keys):
    """All of them end at the same point: half of the noise in which they start."""
    sampler, networks = samplers.parse(text, toy), {'denoiser': None}
    samples = toy.sample(networks, keys(4), None, sampler)
    start = solvers.initial_noise(toy.schedule, keys(4), toy.spec.shape)
    np.testing.assert_array_equal(samples.images, toy.spec.quantise(start / 2))
    assert samples.evaluations == toy.evaluations(sampler) == cost
    trace = toy.trace(networks, start, keys(4), None, sampler, 0)
    np.testing.assert_allclose(trace.states[-1], start / 2, rtol=1e-5)
    np.testing.assert_allclose(trace.predictions[0], start / 2, rtol=1e-5)
