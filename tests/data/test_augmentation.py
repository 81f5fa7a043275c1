"""Augmentation: the map that a vector tells of against SciPy's, how often each part is drawn, and what is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from genbench.data import augmentation, conditions, pipeline
from genbench.data.spec import DataSpec
from genbench.errors import UserError

SPEC = DataSpec('photos', (8, 12, 3), 256, classes=4)


def images(count, shape=(8, 12, 3)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.int32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


augment = jax.jit(functools.partial(augmentation.augment, probability=0.8))  # of 60 images, compiled once


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def by_scipy(image, told):
    """The change that a vector tells of, as one matrix in (right, down) that SciPy inverts and applies."""
    height, width, _ = image.shape
    image = image[:, ::-1] if told[0] else image
    image = image[::-1] if told[1] else image
    r = np.arctan2(told[6], told[5])
    amount = np.hypot(told[5], told[6])
    stretch = rotation(r) @ np.diag([2 ** (0.2 * amount), 2 ** (-0.2 * amount)]) @ rotation(-r)
    whole = stretch @ rotation(np.arctan2(told[4], told[3] + 1)) * 2 ** (0.2 * told[2])
    inverse = np.linalg.inv(whole)[::-1, ::-1]  # of (down, right)
    middle, shift = np.array([height - 1, width - 1]) / 2, 0.125 * np.array([height * told[8], width * told[7]])
    offset = middle - inverse @ (middle + shift)
    channels = [ndimage.affine_transform(image[..., c].astype(float), inverse, offset, order=1, mode='mirror')
                for c in range(image.shape[2])]  # fmt: skip
    return np.stack(channels, -1)


def test_the_vector_tells_exactly_what_was_done():
    x = images(60)
    found, told = map(np.asarray, augment(jnp.asarray(x), keys(60)))
    assert (told != 0).mean(0).min() > 0.2
    for image, changed, one in zip(x, found, told, strict=True):
        np.testing.assert_allclose(changed, by_scipy(image, one.astype(float)), atol=0.51)


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_right_angles_turn_pixels_to_pixels(turns):
    x = images(1, (8, 8, 3))[0].astype(float)
    told = np.zeros(9)
    told[3], told[4] = np.cos(turns * np.pi / 2) - 1, np.sin(turns * np.pi / 2)
    np.testing.assert_allclose(augmentation._warp(jnp.asarray(x), jnp.asarray(told)), np.rot90(x, -turns), atol=0.01)


def test_each_part_is_drawn_as_often_as_it_should_be():
    """With probability p, mirroring up and down with half of it; scales and shifts normal, angles uniform."""
    n, p = 4000, 0.3
    told = np.asarray(jax.jit(augmentation._draw)(keys(n), p), float)
    shares = (told != 0).mean(0)
    for index, wanted in {0: 0.5, 1: p / 2, 2: p, 3: p, 5: p, 6: p / 2, 7: p, 8: p}.items():
        assert shares[index] == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / n)), index
    np.testing.assert_array_equal(told[:, 7] != 0, told[:, 8] != 0)
    for index in (2, 7, 8):
        drawn = told[told[:, index] != 0, index]
        assert (drawn.mean(), drawn.std()) == (pytest.approx(0, abs=0.12), pytest.approx(1, abs=0.1))
    angles = np.arctan2(told[:, 4], told[:, 3] + 1)[told[:, 4] != 0]
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0] == pytest.approx(len(angles) / 4, rel=0.25)
    turned = told[told[:, 6] != 0]
    assert np.abs(np.corrcoef(told.T[[0, 1, 2, 4, 7, 8]]) - np.eye(6)).max() < 0.08 and len(turned) > 500


def test_models_are_told_in_training_and_draw_unchanged_images():
    found = conditions.resolve(('label', 'augmentation:50'), SPEC)
    x = jnp.asarray(images(20))
    change = jax.jit(functools.partial(conditions.augmented, found))
    batch = change({'image': x, 'label': jnp.arange(20) % 4}, jax.random.key(1))
    given = conditions.make(found, batch, keys(20))
    assert given['augmentation'].shape == (20, 9) and (batch['image'] != x).any()
    same = (np.asarray(given['augmentation']) == 0).all(1)
    np.testing.assert_array_equal(batch['image'][same], x[same])
    sampled = conditions.make(found, {'image': x, 'label': jnp.arange(20) % 4}, keys(20))
    assert not sampled['augmentation'].any()
    nothing = conditions.drop(found, given, jnp.ones(20, bool))
    assert (nothing['label'] == 4).all()
    np.testing.assert_array_equal(nothing['augmentation'], given['augmentation'])  # or changed images would leak


def test_an_image_is_changed_by_its_own_key():
    x, order = jnp.asarray(images(60)), np.random.default_rng(0).permutation(60)
    for whole, part in zip(augment(x, keys(60)), augment(x[order], keys(60)[order]), strict=True):
        np.testing.assert_array_equal(part, whole[order])


def test_a_random_crop_moves_images_and_reflects_what_is_missing():
    x = images(300, (5, 6, 1))
    found = np.asarray(pipeline.random_crop(jnp.asarray(x), jax.random.key(0), 2))
    places = set()
    for image, moved in zip(x, found, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='reflect')
        (place,) = [(top, left) for top in range(5) for left in range(5)
                    if (padded[top : top + 5, left : left + 6] == moved).all()]  # fmt: skip
        places.add(place)
    assert len(places) == 25
    with pytest.raises(
        UserError, match='data.random_crop is 5; it should be less than the sides of the images, 5 and 6'
    ):
        pipeline.random_crop(jnp.asarray(x), jax.random.key(0), 5)


@pytest.mark.parametrize('name', ['augmentation:0', 'augmentation:101', 'augmentation:x'])
def test_a_probability_that_is_none_is_refused(name):
    with pytest.raises(UserError, match='the number should be between 1 and 100'):
        conditions.resolve((name,), SPEC)
