"""Mean flows against the flow of Gaussian data, whose mean velocity is known between any two times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DEVIATION, velocity
from oracles import mean_velocity as exact

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.interpolants.schedules import expand

SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
LABELLED = DataSpec('pairs', (1, 1, 2), levels=8192, classes=2)
COUNT = 40_000
SHIFT = 0.1


@pytest.fixture
def rows(keys):
    x = DEVIATION * np.random.default_rng(0).normal(size=(COUNT, 2))
    return {'image': SPEC.quantise(x.astype(np.float32)).reshape(-1, 1, 1, 2), 'key': keys(COUNT)}


@pytest.mark.parametrize(('network', 'right'), [(exact, True), (velocity, False)])
def test_the_mean_velocity_of_the_flow_has_no_gradient(network, right, make_family, rows):
    """The loss of (1 + a) u by a, at a = 0: half of it is the mean of u · (u − target)."""
    family = make_family('mean_flow', spec=SPEC, apart=1.0, adaptive=0.0, time_sampler='uniform')

    def loss(a):
        scaled = lambda *inputs, **options: (1 + a) * network(*inputs, **options)  # noqa: E731
        return family.loss(Networks({'denoiser': scaled}), rows, jax.random.key(0), jnp.zeros(()))[0]

    slope = float(jax.jit(jax.grad(loss))(0.0))
    assert abs(slope) < 0.02 if right else abs(slope) > 0.1


def test_one_step_of_the_exact_map_draws_the_data(make_family, keys):
    family = make_family('mean_flow', spec=SPEC)
    for steps in (1, 3):
        images = family.sample(Networks({'denoiser': exact}), keys(20_000), None, Sampler('flow_map', steps)).images
        np.testing.assert_allclose(SPEC.dequantise(images).std((0, 1, 2)), DEVIATION, rtol=0.03)


def guided_mean_velocity(weight):
    """Of data with the mean SHIFT for the label 1 and 0 without a label, guided with this weight."""

    def network(x_t, t, given=None, key=None, s=None):
        mean = SHIFT * (1 + weight) * (np.zeros(1) if given is None else given['label'] == 1).astype(jnp.float32)
        mean = expand(jnp.broadcast_to(mean, t.shape), x_t)
        return exact(x_t - (1 - expand(t, x_t)) * mean, t, s=s) - mean

    return network


@pytest.mark.parametrize(('learned', 'options', 'right'), [
    (1.5, {'guidance': 1.5}, True),
    (1.5, {'guidance': 1.5, 'mixed': 0.5}, True),
    (0.0, {'guidance': 1.5}, False),
    (1.5, {'guidance': 0.5, 'mixed': 0.5}, False),
    (0.0, {'guidance': 1.5, 'guided_within': (0.0, 1e-9)}, True),
    (0.0, {'guidance': 1.5, 'guided_within': (1 - 1e-6, 1.0)}, True),
])  # fmt: skip
def test_the_mean_velocity_of_the_guided_flow_has_no_gradient(learned, options, right, make_family, rows):
    """The loss of u + a (u of the label − u of none) by a, at a = 0. Guided Gaussians have (1 + w) times the shift."""
    chosen = {'apart': 0.5, 'adaptive': 0.0, 'time_sampler': 'uniform', 'condition_dropout': 1e-9, **options}
    family = make_family('mean_flow', True, spec=LABELLED, **chosen)
    network = guided_mean_velocity(learned)
    moved = {**rows, 'image': SPEC.quantise(SPEC.dequantise(rows['image']) + SHIFT), 'label': jnp.ones(COUNT, int)}

    def loss(a):
        def changed(x_t, t, given=None, **more):
            told, untold = (network(x_t, t, one, **more) for one in (given, None))
            return told + a * (told - untold)

        return family.loss(Networks({'denoiser': changed}), moved, jax.random.key(0), jnp.zeros(()))[0]

    slope = float(jax.jit(jax.grad(loss))(0.0))
    assert abs(slope) < 0.002 if right else abs(slope) > 0.01


def test_images_whose_condition_is_dropped_keep_their_velocity(make_family, keys):
    family = make_family('mean_flow', True, spec=LABELLED, guidance=1.5, condition_dropout=0.5)
    batch = {'image': jnp.zeros((20, 1, 1, 2), int), 'label': jnp.ones(20, int), 'key': keys(20)}
    v, t = jnp.ones((20, 1, 1, 2)), jnp.full(20, 0.5)
    found = family.guided(Networks({'denoiser': guided_mean_velocity(0.0)}), batch, 2 * v, t, v)
    np.testing.assert_array_equal((found == v).all((1, 2, 3)), family.silent(batch))
    assert 0 < family.silent(batch).sum() < 20


def test_guidance_that_cannot_be_learned_is_refused(make_family):
    pictures = {'conditions': ('augmentation:12',)}  # which are never dropped
    for conditional, options in (
        (False, {}), (True, {'condition_dropout': 0.0}), (True, {'condition_dropout': 1.0}), (False, pictures),
    ):  # fmt: skip
        with pytest.raises(UserError, match='family.guidance is 1, which compares predictions with and without'):
            make_family('mean_flow', conditional, guidance=1.0, **options)
    for name, value in (('mixed', 0.5), ('guided_within', (0.0, 0.5))):
        with pytest.raises(UserError, match=f'family.{name} has no effect without family.guidance'):
            make_family('mean_flow', True, **{name: value})
    with pytest.raises(UserError, match='give an earlier and a later time'):
        make_family('mean_flow', True, guidance=1.0, condition_dropout=0.1, guided_within=(0.5, 0.5))


def test_what_is_no_velocity_is_refused(make_family):
    with pytest.raises(UserError, match="family.prediction is 'x', but mean_flow learns a mean velocity; use velocity"):
        make_family('mean_flow', prediction='x')
