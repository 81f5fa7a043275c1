"""Sampling with what is known of the images: what is kept, what it costs, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data import degradations
from genbench.errors import UserError
from genbench.families import originals
from genbench.families.base import Sampler
from genbench.training import samplers


@pytest.fixture
def images(built):
    spec = built('diffusion')[0].spec
    return np.random.default_rng(0).integers(0, spec.levels, (3, *spec.shape))


@functools.cache
def compiled(family, blueprint):
    return jax.jit(lambda state, keys, held, one: family.sample(blueprint.bind_state(state), keys, held, one))


def drawn(built, name, keys, text, **held):
    family, blueprint, state = built(name)
    sampler = samplers.parse(text, family)
    bound = {part: state[part] for part in ('params', 'aux', 'averages', 'lent') if part in state}
    samples = compiled(family, blueprint)(bound, keys(3), held, sampler)
    assert int(samples.evaluations) == family.evaluations(sampler)
    return samples


@pytest.mark.parametrize(('text', 'cost'), [('ancestral:3:problem=half,posterior=ddnm', 3),
                                            ('ancestral:2:problem=half,resample=2', 4)])  # fmt: skip
def test_pixels_that_are_known_come_out_as_they_are(text, cost, images, built, keys):
    shown = built('diffusion')[0].spec.dequantise(jnp.asarray(images))
    samples = drawn(built, 'diffusion', keys, text, original=shown)
    np.testing.assert_array_equal(samples.images[:, :2], images[:, :2])
    assert (np.asarray(samples.images[:, 2:]) != images[:, 2:]).any() and samples.evaluations == cost


def test_a_mask_is_one_problem_of_many(images, built, keys):
    """A picture that is white where `half` shows the image gives the same images as `half`."""
    spec = built('diffusion')[0].spec
    shown, known = spec.dequantise(jnp.asarray(images)), jnp.zeros((3, 4, 4, 1)).at[:, :2].set(1)
    text = 'ancestral:3:problem={},posterior=ddnm'
    one = drawn(built, 'diffusion', keys, text.format('half'), original=shown)
    other = drawn(built, 'diffusion', keys, text.format('mask'), original=shown, known=known)
    np.testing.assert_array_equal(one.images, other.images)


def test_a_gradient_through_the_network_hears_what_is_known(images, built, keys):
    shown = built('flow_matching')[0].spec.dequantise(jnp.asarray(images))
    text = 'euler:2:problem=pool2,posterior=pigdm'
    one, other = (drawn(built, 'flow_matching', keys, text, original=x).images for x in (shown, shown[::-1]))
    assert (one[0] != other[0]).any()


REFUSED = [
    ('diffusion', 'ddim:2:problem=jpeg,posterior=ddnm', 'jpeg rounds; use dps or pigdm'),
    ('diffusion', 'ddim:2:problem=mask', 'problem=mask needs --given known'),
    ('diffusion', 'ddim:2:problem=pool3', 'divisible by 3'),
    ('consistency', 'multistep_consistency:2:problem=half,posterior=pigdm', 'use replacement or ddnm'),
    ('consistency', 'multistep_consistency:2:start=inverted', 'this network jumps along it'),
]


@pytest.mark.parametrize(('name', 'text', 'why'), REFUSED)
def test_what_the_mathematics_rule_out(name, text, why, images, built, keys):
    shown = built(name)[0].spec.dequantise(jnp.asarray(images))
    with pytest.raises(UserError, match=why):
        drawn(built, name, keys, text, original=shown)


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('ddim:2:problem=haff', 'Did you mean half'),
        ('ddim:2:posterior=ddnm', 'no effect without problem'),
        ('ddim:2:problem=half,weight=2', 'no effect without posterior'),
        ('rk45:9:problem=half', 'problem is for steps that are the same'),
    ],
)
def test_options_that_do_not_go_together(text, why, built):
    with pytest.raises(UserError, match=why):
        samplers.parse(text, built('diffusion')[0])


@pytest.mark.parametrize('noise', [0.0, 0.3])
def test_hidden_pixels_have_no_noise(noise, images, built, keys):
    family = built('flow_matching')[0]
    options = samplers.parse(f'euler:2:problem=half,posterior=pigdm,noise={noise}', family).options
    shown, sampler = family.spec.dequantise(jnp.asarray(images)), Sampler('euler', 2, options=options)
    found = originals.observed({'original': shown}, sampler, family.space, keys(3), 'denoiser')
    assert (found.y[:, 2:] == 0).all() and (found.misfit(shown)[:, 2:] == 0).all()
    assert np.std(found.y[:, :2] - shown[:, :2]) == pytest.approx(noise, rel=0.2)


def test_an_observation_is_in_units_of_the_data_space(built, keys):
    """The denoiser of a model whose images fill [−2, 2] sees twice the observation and twice its noise."""
    space = built('flow_matching')[0].space
    wide = type(space)(space.spec, scale=2.0)
    options = samplers.parse('euler:2:problem=jpeg,posterior=pigdm,noise=0.1', built('flow_matching')[0]).options
    y = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, *space.shape)), jnp.float32)
    found = originals.observed({'observed': y}, Sampler('euler', 2, options=options), wide, keys(3), 'denoiser')
    np.testing.assert_allclose(found.y, 2 * y)
    assert found.noise == pytest.approx(0.2)
    np.testing.assert_allclose(found.degradation(2 * y), 2 * degradations.make('jpeg', space.shape)(y), atol=1e-5)
