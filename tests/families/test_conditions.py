"""Families with conditions of every form, those whose networks take classes, and a student with its teacher's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config, families
from genbench.data import captions
from genbench.data.spec import TEXT, DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Sampler
from genbench.training import samplers
from genbench.training.state import Blueprint, flatten

SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3, fields=(('caption', TEXT),))
KINDS = ('label', 'caption', 'low_resolution:2', 'edges', 'masked:25')
NAMES = ('label', 'caption', 'low_resolution', 'edges', 'masked')


def resolved(name, **options):
    network = {'channels': 8, 'multipliers': (1,), 'groups': 4} if name != 'consistency' else {}
    return config.resolve({'family': {'name': name, **options}, 'network': network})


@functools.cache
def built():
    """(family, blueprint, state whose parameters are random) of a model that is told everything."""
    family = families.get('diffusion')(resolved('diffusion', conditions=KINDS), SPEC)
    blueprint, rng = Blueprint(family), np.random.default_rng(1)
    state = jax.eval_shape(blueprint.initial_state, jax.random.key(0), batch(), {})
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32)  # noqa: E731
    return family, blueprint, {'params': jax.tree.map(draw, state['params']), 'aux': state['aux'], 'averages': {}}


def batch(count=8):
    rng = np.random.default_rng(0)
    texts = captions.words([' '.join(map(str, rng.integers(0, 100, 16))) for _ in range(count)])
    images = rng.integers(0, SPEC.levels, (count, *SPEC.shape))
    return {'image': jnp.asarray(images, jnp.int32), 'label': jnp.arange(count) % 3, 'caption': jnp.asarray(texts),
            'key': jax.random.split(jax.random.key(3), count)}  # fmt: skip


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def drawer(sampler):
    family, blueprint, state = built()
    return jax.jit(lambda keys, given: family.sample(blueprint.bind_state(state), keys, given, sampler))


def test_a_loss_with_conditions_of_every_form_is_finite_and_reaches_every_parameter():
    family, blueprint, state = built()

    def loss(params):
        networks = blueprint.bind(params, state['aux'])
        return family.updates[0].loss(networks, batch(), jax.random.key(0), 0)[0]

    value, slopes = jax.jit(jax.value_and_grad(loss))(state['params'])
    assert np.isfinite(value)
    assert not [key for key, slope in flatten(slopes).items() if not np.abs(slope).max() > 0]


def test_a_loss_with_bytes_reaches_every_parameter_of_an_mmdit_and_of_its_reader():
    network = {'name': 'mmdit', 'depth': 2, 'width': 16, 'heads': 2, 'text_depth': 1, 'text_width': 8, 'text_heads': 2}
    values = {'family': {'name': 'flow_matching', 'conditions': ('caption:bytes6',)}, 'network': network}
    family = families.get('flow_matching')(config.resolve(values), SPEC)
    blueprint, rng = Blueprint(family), np.random.default_rng(1)
    rows = {**batch(), 'caption:bytes6': jnp.asarray(captions.reading('bytes6').numbers(['a b', 'naïve'] * 4))}
    shapes = jax.eval_shape(blueprint.initial_state, jax.random.key(0), rows, {})
    params = jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), shapes['params'])

    def loss(params):
        return family.updates[0].loss(blueprint.bind(params, shapes['aux']), rows, jax.random.key(0), 0)[0]

    slopes = flatten(jax.jit(jax.grad(loss))(params))
    assert any('words/blocks' in key for key in slopes)
    assert not [key for key, slope in slopes.items() if not np.abs(slope).max() > 0]


@pytest.mark.parametrize('sampler', [Sampler('ddim', 2), Sampler('ddim', 2, 1.5)], ids=['plain', 'guided'])
def test_conditional_samples_hear_everything_they_are_told_and_no_neighbour(sampler):
    family, draw = built()[0], drawer(sampler)
    given = family.given(batch())
    assert tuple(given) == NAMES
    images = np.asarray(draw(keys(8), given).images)
    part = jax.tree.map(lambda values: values[2:5], given)
    np.testing.assert_array_equal(draw(keys(8)[2:5], part).images, images[2:5])
    for name in NAMES:
        other = {**given, name: jnp.roll(given[name], 1, axis=0)}
        assert (draw(keys(8), other).images != images).any(), name


def test_guidance_costs_two_evaluations_a_step_for_conditions_of_any_kind():
    family = built()[0]
    for sampler, count in ((Sampler('ddim', 2), 2), (Sampler('ddim', 2, 1.5), 4)):
        assert drawer(sampler)(keys(8), family.given(batch())).evaluations == count
        assert family.evaluations(sampler) == count


def test_an_empty_negative_caption_is_ordinary_guidance_bit_for_bit():
    family = built()[0]
    given = family.given(batch())
    empty = samplers.parse('ddim:2:guidance=1.5,negative=caption=', family)
    np.testing.assert_array_equal(drawer(empty)(keys(8), given).images,
                                  drawer(Sampler('ddim', 2, 1.5))(keys(8), given).images)  # fmt: skip


def test_one_guided_step_is_two_calls_of_the_network_by_hand():
    """From x_t at t_max straight to the image: v = 2.5 v(given) − 1.5 v(negative), x = α x_t − σ v, in levels."""
    family, blueprint, state = built()
    given, networks = family.given(batch()), blueprint.bind_state(state)
    sampler = samplers.parse('ddim:1:guidance=1.5,negative=caption=a thin seven', family)
    x_t, t = family.starts(keys(8)), jnp.full(8, family.schedule.t_max)
    a, s = float(family.schedule.alpha(t)[0]), float(family.schedule.sigma(t)[0])
    words = jnp.tile(captions.words(['A thin seven']), (8, 1))
    towards, away = (
        networks['denoiser'](x_t, family.schedule.condition(t), one) for one in (given, {'caption': words})
    )
    image = a * x_t - s * (2.5 * np.asarray(towards) - 1.5 * np.asarray(away))
    wanted = np.clip(np.floor((image + 1) / 2 * SPEC.levels), 0, SPEC.levels - 1)
    assert family.prediction == 'v' and (drawer(sampler)(keys(8), given).images == wanted).mean() > 0.99


def test_all_that_an_image_is_told_is_dropped_together():
    """Classifier-free guidance asks the network with nothing, not with half of what it knows."""
    family = families.get('diffusion')(resolved('diffusion', conditions=KINDS, condition_dropout=0.5), SPEC)
    rows = batch(400)
    seen, given = family.dropped(rows), family.given(rows)
    silent = np.asarray(seen['label']) == 3
    assert silent.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(400))
    for name, form in family.forms.items():
        np.testing.assert_array_equal(np.asarray(seen[name])[silent], np.asarray(form.null(silent.sum())))
        np.testing.assert_array_equal(np.asarray(seen[name])[~silent], np.asarray(given[name])[~silent])


def test_only_the_fields_that_conditions_are_made_of_are_wanted_of_the_data():
    wanted = {('label',): (), ('masked',): (), ('caption',): ('caption',), KINDS: ('caption',), (): ()}
    for kinds, fields in wanted.items():
        assert families.get('diffusion')(resolved('diffusion', conditions=kinds), SPEC).fields == fields


def test_conditional_is_short_for_the_label():
    one = families.get('diffusion')(resolved('diffusion', conditional=True), SPEC)
    other = families.get('diffusion')(resolved('diffusion', conditions=('label',)), SPEC)
    assert one.forms == other.forms and one.conditional and other.conditional
    with pytest.raises(UserError, match='names label twice'):
        families.get('diffusion')(resolved('diffusion', conditional=True, conditions=('label',)), SPEC)


def test_a_student_is_told_no_more_than_its_teacher_was():
    lender = families.get('diffusion')(resolved('diffusion', conditions=('low_resolution:2',)), SPEC)
    make = functools.partial(families.get('consistency'), spec=SPEC, borrowed={'teacher': Borrowed(lender)})
    assert make(resolved('consistency', conditions=('low_resolution:2',))).conditional
    assert not make(resolved('consistency')).conditional
    with pytest.raises(UserError, match='The condition caption needs a teacher that was trained with it'):
        make(resolved('consistency', conditions=('caption',)))


@pytest.mark.parametrize('name', ['gaussian', 'vae', 'gan', 'normalizing_flow'])
@pytest.mark.parametrize('kind', ['caption', 'edges'])
def test_a_family_whose_networks_take_classes_refuses_the_rest_before_anything_compiles(name, kind, make_family):
    with pytest.raises(UserError, match=f'cannot take the condition {kind}: it takes class labels') as found:
        _ = Blueprint(make_family(name, spec=SPEC, conditions=(kind,))).shapes
    assert '\n' not in str(found.value)
