"""Equivariance: movements against the official code (networks/record_stylegan3.py), and models that move exactly."""

import pathlib
import types

import jax.numpy as jnp
import numpy as np
import pytest

from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import equivariance
from genbench.families.base import Sampler

DIRECT = Sampler('direct')


@pytest.fixture(scope='module')
def recorded():
    with np.load(pathlib.Path(__file__).parent / 'fixtures' / 'equivariance.npz') as file:
        return dict(file)


@pytest.mark.parametrize('name', ['turned', 'as_if_turned', 'shifted', 'whole'])
def test_images_are_moved_as_by_the_official_code(name, recorded):
    how = {
        'turned': lambda x: equivariance.turned(x, recorded['angle']),
        'as_if_turned': lambda x: equivariance.as_if_turned(x, recorded['angle']),
        'shifted': lambda x: equivariance.shifted(x, recorded['shift']),
        'whole': lambda x: equivariance.shifted(x, np.array([2, -3]) / 24),
    }[name]
    found, known = how(recorded['images'].astype(np.float64))
    wanted = recorded[f'{name} mask'] > 0
    assert (known == wanted).mean() > 0.99 and known.sum() > 50
    np.testing.assert_allclose(found[:, known & wanted], recorded[name][:, known & wanted], rtol=1e-3, atol=2e-3)


def test_decibels_are_those_of_the_mean_over_all_pixels():
    """Noise of deviation s in both images: 10 log₁₀ (4 / (2 s²)). Groups with more pixels count for more."""
    rng, sums = np.random.default_rng(0), []
    for size in (10, 30, 40):
        one, other = (0.1 * rng.normal(size=(16, size, size, 3)) for _ in range(2))
        sums.append(equivariance.difference((one, np.ones((size, size), bool)), (other, np.ones((size, size), bool))))
    value, error = equivariance.decibels(np.array(sums))
    assert value == pytest.approx(10 * np.log10(4 / 0.02), abs=0.1) and 0 < error < 0.2


@pytest.fixture(scope='module')
def blueprint(tiny):
    """`blueprint(size, moves)` → a model of waves at random places, which move with the scene if `moves`."""

    def make(size, moves=True):
        class Waves(families.get('gan')):
            def moved(self, networks, latents, keys, given, sampler, transform):
                line = (jnp.arange(size) + 0.5) / size - 0.5
                points = jnp.stack([*jnp.meshgrid(line, line), jnp.ones((size, size))], -1)
                seen = jnp.einsum('nij,hwj->nhwi', transform if moves else jnp.eye(3)[None], points)
                phases = 0.2 * size * (latents[:, None, None, :1] * seen[..., :1] + seen[..., 1:2])
                return 0.5 * jnp.sin(2 * jnp.pi * phases / (1 + latents[:, None, None, :1] ** 2) ** 0.5)

        family = Waves(tiny('gan', 'network.latent=3'), DataSpec('images', (size, size, 1), 256))
        return types.SimpleNamespace(family=family, bind_state=lambda state: {})

    return make


def decibels(blueprint, name, groups=3):
    move = equivariance.MOVES[name]
    sums = equivariance.measure(blueprint, {}, DIRECT, move, None, span=(0, groups), seed=0, batch_size=32)
    assert sums.shape == (groups, 2)
    return equivariance.decibels(sums)[0]


@pytest.mark.parametrize(('name', 'least'), [('eq_t', 90), ('eq_t_frac', 40), ('eq_r', 40)])
def test_a_model_that_moves_exactly_is_limited_by_filters_alone(name, least, blueprint):
    assert decibels(blueprint(32), name) > least
    assert decibels(blueprint(32, moves=False), name) < 20


def test_a_model_without_scenes_and_images_without_a_middle_are_refused(blueprint, tiny):
    plain = families.get('gan')(tiny('gan', 'network.latent=3'), DataSpec('images', (16, 16, 1), 256))
    model = types.SimpleNamespace(family=plain, bind_state=lambda state: {})
    with pytest.raises(UserError, match='gan has no scenes that could be moved'):
        decibels(model, 'eq_t')
    with pytest.raises(UserError, match='Images of 8 pixels have none left in the middle.*needs 16'):
        decibels(blueprint(8), 'eq_r')
