"""Degradations against their matrices, and the quantisation against a JPEG library."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from genbench.data import degradations
from genbench.errors import UserError

SHAPE = (8, 8, 3)
LINEAR = ('box', 'half', 'random30', 'border60', 'pool2', 'pool4', 'pool8', 'blur0.8', 'grey', 'noise')


def matrix(degradation, shape=SHAPE):
    """A, with a column for each value of an image."""
    size = int(np.prod(shape))
    return np.asarray(degradation(jnp.eye(size).reshape(size, *shape)).reshape(size, -1)).T.astype(float)


@pytest.mark.parametrize('name', LINEAR)
def test_the_adjoint_moves_to_the_other_side_of_an_inner_product(name):
    one, rng = degradations.make(name, SHAPE), np.random.default_rng(0)
    x = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    y = rng.normal(size=one(x).shape).astype(np.float32)
    left, right = (np.sum(a * b, axis=(1, 2, 3)) for a, b in ((one(x), y), (x, one.adjoint(y))))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', LINEAR)
def test_the_inverse_is_that_of_the_whole_matrix(name):
    one, rng = degradations.make(name, SHAPE), np.random.default_rng(1)
    a, y = matrix(one), one(rng.normal(size=(4, *SHAPE)))
    wanted = np.asarray(y).reshape(4, -1) @ np.linalg.pinv(a, rcond=1e-6).T
    np.testing.assert_allclose(one.inverse(y).reshape(4, -1), wanted, atol=2e-3)
    np.testing.assert_allclose(one(one.filled(jnp.zeros((4, *SHAPE)), y)), y, atol=2e-3)


@pytest.mark.parametrize('name', LINEAR)
def test_whitened_observations_solve_the_equation_with_the_whole_matrix(name):
    one, rng = degradations.make(name, SHAPE), np.random.default_rng(2)
    matrix_, y = matrix(one), np.asarray(one(rng.normal(size=(4, *SHAPE))))
    for a, b in ((0.7, 0.3), (2.0, 0.05)):
        wanted = np.linalg.solve(a * matrix_ @ matrix_.T + b * np.eye(len(matrix_)), y.reshape(4, -1).T).T
        each = jnp.full((4, 1, 1, 1), a)
        np.testing.assert_allclose(one.whitened(y, each, b).reshape(4, -1), wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('name', ['half', 'pool2', 'jpeg'])
def test_distances_are_means_over_what_is_shown(name):
    one, x = degradations.make(name, SHAPE), jnp.zeros((2, *SHAPE))
    np.testing.assert_allclose(one.distance(one(x) + 0.3, x), 0.3, rtol=1e-5)


@pytest.mark.parametrize(('name', 'hidden'), [('box', 16), ('half', 32), ('random25', 16), ('border75', 48)])
def test_masks_hide_their_share(name, hidden):
    seen = np.asarray(degradations.make(name, (8, 8, 1))(jnp.ones((1, 8, 8, 1))))
    assert (seen == 0).sum() == hidden and (seen == 1).sum() == 64 - hidden


def test_pools_are_means_and_blurs_keep_the_mean_of_a_constant():
    x = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    small = degradations.make('pool4', SHAPE)(x)
    np.testing.assert_allclose(small[:, 1, 0], x[:, 4:, :4].mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(degradations.make('blur2', SHAPE)(jnp.full((1, *SHAPE), 0.3)), 0.3, rtol=1e-5)


def test_a_blur_is_that_of_scipy():
    x = np.random.default_rng(0).normal(size=SHAPE)
    wanted = ndimage.gaussian_filter(x, (1.1, 1.1, 0), mode='reflect', truncate=12)
    found = degradations.make('blur1.1', SHAPE)(jnp.asarray(x, jnp.float32)[None])[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # here the weights of three periods sum to one


@pytest.mark.parametrize('quality', [10, 25, 50])
def test_quantisation_loses_what_a_jpeg_loses(quality):
    place = np.arange(24)
    levels = 127 + 90 * np.sin(place[:, None] / 3) * np.cos(place / 4) + np.random.default_rng(0).normal(0, 8, (24, 24))
    levels = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, 'JPEG', quality=quality)
    wanted = np.asarray(Image.open(file)).astype(float)
    x = jnp.asarray(levels[None, ..., None], jnp.float32) / 127.5 - 1
    found = np.clip(127.5 * (1 + np.asarray(degradations.make(f'jpeg{quality}', (24, 24, 1))(x))[0, ..., 0]), 0, 255)
    assert (np.abs(found - wanted) <= 2).mean() > 0.8 and np.abs(wanted - levels).max() > 5  # ties go either way


def test_quantisation_scales_with_the_data_space_and_lets_gradients_through():
    one = degradations.make('jpeg25', (8, 8, 1))
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 1)), jnp.float32)
    np.testing.assert_allclose(one.at(3.0)(3 * x), 3 * one(x), atol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: (one(x) * x[::-1]).sum())(x) - one(x)[::-1], x[::-1], atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'words'),
    [('haff', 'Did you mean half'), ('pool99', 'a number from 2 to 64'), ('half3', 'half without a number'),
     ('', 'box, half'), ('box0', 'from 1 to 99')],
)  # fmt: skip
def test_a_problem_that_does_not_exist(name, words):
    with pytest.raises(ValueError, match=words):
        degradations.read(name)


@pytest.mark.parametrize(('name', 'shape', 'words'), [('pool4', (6, 8, 1), 'divisible by 4'),
                                                      ('grey', (8, 8, 1), 'are grey')])  # fmt: skip
def test_a_problem_that_does_not_suit_the_images(name, shape, words):
    with pytest.raises(UserError, match=words):
        degradations.make(name, shape)
