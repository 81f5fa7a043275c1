"""What every family that ships keeps to, with and without conditions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped

from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Sampler
from genbench.training.state import flatten

pytestmark = pytest.mark.unoptimized
every_family = pytest.mark.parametrize('name', shipped.NAMES)
SAMPLERS = sorted({sampler for name in shipped.NAMES for sampler in families.get(name).samplers})


def usual(family):
    """Two steps of a sampler that shows the spread of the model, which the mean of a decoder does not."""
    return Sampler(family.samplers[-1], 2)


@functools.cache
def compiled(family, blueprint):
    return jax.jit(lambda state, keys, given, sampler: family.sample(blueprint.bind_state(state), keys, given, sampler))


def drawn(built, keys, sampler=None, given=None):
    family, blueprint, state = built
    bound = {name: state[name] for name in ('params', 'aux', 'averages', 'lent')}
    return compiled(family, blueprint)(bound, keys, given, sampler or usual(family))


def gradient(built, update, batch):
    """((loss, scalars), gradient by the parameters that the update moves)."""
    _, blueprint, state = built

    def loss(moved):
        networks = blueprint.bind_state({**state, 'params': {**state['params'], **moved}})
        return update.loss(networks, batch, jax.random.key(0), state['step'])

    moved = {network: state['params'][network] for network in update.networks}
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(moved)


def assert_images(images, spec, count):
    images = np.asarray(images)
    assert images.shape == (count, *spec.shape) and np.issubdtype(images.dtype, np.integer)
    assert images.min() >= 0 and images.max() < spec.levels
    different = len(np.unique(images.reshape(count, -1), axis=0))
    assert different > 0.9 * count  # among many images of five levels by random networks a few coincide


@every_family
def test_samples_are_images_of_the_data_set_and_do_not_depend_on_their_batch(name, built, keys):
    family = built(name)[0]
    samples = drawn(built(name), keys(6))
    assert_images(samples.images, family.spec, 6)
    np.testing.assert_array_equal(drawn(built(name), keys(6)[2:4]).images, samples.images[2:4])
    assert samples.evaluations == family.evaluations(usual(family))


@every_family
def test_conditional_samples_hear_the_label(name, built, keys):
    one, other = (drawn(built(name, True), keys(64), given={'label': jnp.full(64, label)}).images for label in (0, 1))
    assert_images(one, built(name, True)[0].spec, 64)
    assert (one != other).any()


@every_family
def test_losses_are_finite_and_reach_every_parameter_that_an_update_names(name, built, batch):
    """Of a conditional model, whose parameters include those of an unconditional one."""
    subject = built(name, True)
    for update in subject[0].updates:
        (loss, scalars), slopes = gradient(subject, update, batch)
        assert np.isfinite(loss) and all(np.isfinite(value) for value in scalars.values())
        if update.optimizer is not None:
            assert set(slopes) == set(update.networks)
            assert not [key for key, slope in flatten(slopes).items() if not np.abs(slope).max() > 0]


@every_family
def test_likelihoods_are_finite_and_one_number_an_image(name, built, batch, keys):
    family, blueprint, state = built(name, True)
    if family.path is not None:
        pytest.skip('the densities and bounds of a path, which compile for long, have tests of their own')
    networks = blueprint.bind_state(state)
    for likelihood in family.likelihoods:
        values = jax.jit(lambda *inputs, one=likelihood: one.log_prob(networks, *inputs))(
            batch['image'], family.given(batch), keys(8)
        )
        values = values['log_prob'] if isinstance(values, dict) else values
        assert values.shape == (8,) and np.isfinite(values).all() and (values < 0).all()


@every_family
def test_every_likelihood_says_what_kind_it_is(name, built):
    likelihoods = built(name)[0].likelihoods
    assert all(one.kind in ('exact', 'lower_bound', 'estimate') for one in likelihoods)
    assert len({one.method for one in likelihoods}) == len(likelihoods)


@every_family
def test_samples_are_a_function_of_what_they_start_from(name, built, keys):
    """Of noise at the beginning of a path, or of latents; two starts give two images, one start gives one."""
    family, blueprint, state = built(name)
    if family.path is None and family.latent_shape is None:
        pytest.skip(f'{name} begins with codes that it draws from each key, not with reals')
    networks, sampler = blueprint.bind_state(state), usual(family)
    shape = family.latent_shape or family.spec.shape
    one, other = 20 * jax.random.normal(jax.random.key(0), (2, *shape))  # far enough apart for untrained networks
    start, same = jnp.stack([one, other, one]), jnp.repeat(keys(1), 3)
    if family.path is None:
        images = family.generate(networks, start, same, None, sampler)
    else:
        trace = jax.jit(lambda x, keys: family.trace(networks, x, keys, None, sampler, 0))(start, same)
        assert trace.states.shape == (3, 3, *family.spec.shape)
        images = family.spec.quantise(trace.states[-1])
    assert_images(images[:2], family.spec, 2)
    np.testing.assert_array_equal(images[0], images[2])


def test_guidance_doubles_the_evaluations_and_changes_the_samples(built, keys):
    given = {'label': jnp.array([0, 1, 2])}
    plain, guided = (
        drawn(built('diffusion', True), keys(3), Sampler('ddim', 2, guidance), given) for guidance in (0.0, 3.0)
    )
    assert (plain.evaluations, guided.evaluations) == (2, 4)
    assert built('diffusion', True)[0].evaluations(Sampler('ddim', 2, 3.0)) == 4
    assert (plain.images != guided.images).any()


@every_family
def test_a_conditional_model_of_unlabelled_data_is_refused(name, make_family):
    unlabelled = DataSpec('faces', (4, 4, 3), 5)
    with pytest.raises(UserError, match='family.conditional needs labels, but faces has none'):
        make_family(name, True, spec=unlabelled)


@every_family
def test_a_sampler_that_does_not_fit_is_refused(name, built):
    family = built(name)[0]
    for sampler in {*SAMPLERS, 'no_such_sampler'} - {*family.samplers}:
        with pytest.raises(UserError, match=sampler):
            family.check_sampler(sampler)
    for sampler in family.samplers:
        family.check_sampler(sampler)


def test_a_misspelt_family_is_answered_with_the_nearest_name():
    with pytest.raises(UserError, match="'difusion'.*Did you mean diffusion"):
        families.get('difusion')
    with pytest.raises(UserError, match='Set family.name'):
        families.get('')
