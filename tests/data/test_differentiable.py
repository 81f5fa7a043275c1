"""Augmentations for discriminators: each change by numpy, how often they happen, and that nothing leaks at p = 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genbench.data import differentiable

SIZE, COUNT = 8, 600


@pytest.fixture(scope='module')
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3)), jnp.float32)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def of(*rows):
    return jnp.asarray([[*rows, (0.0, 0.0, 1.0)]], jnp.float32)


CHANGES = {  # the matrix from a place of the result to the place that it shows, and the same by numpy
    'nothing': (of((1, 0, 0), (0, 1, 0)), lambda x: x),
    'mirror': (of((-1, 0, 0), (0, 1, 0)), lambda x: x[:, ::-1]),
    'quarter turn': (of((0, -1, 0), (1, 0, 0)), lambda x: np.rot90(x, -1)),
    'shift': (of((1, 0, -2), (0, 1, 1)), lambda x: np.pad(x, ((0, 1), (2, 0), (0, 0)), 'reflect')[1:, :-2]),
    'half a pixel': (
        of((1, 0, 0.5), (0, 1, 0)), lambda x: (x + np.pad(x, ((0, 0), (0, 1), (0, 0)), 'reflect')[:, 1:]) / 2
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', CHANGES)
def test_a_matrix_says_which_places_are_shown(name, images):
    matrix, wanted = CHANGES[name]
    found = np.asarray(differentiable.warped(images[:1], matrix))[0]
    options = [wanted(np.asarray(images[0]))]
    if name == 'quarter turn':  # either sense is drawn equally often
        options.append(np.rot90(np.asarray(images[0]), 1))
    assert min(np.abs(found - one).max() for one in options) < 1e-4


@pytest.mark.parametrize('name', ['bgc', 'bgc_cutout'])
def test_without_probability_images_stay_as_they_are(name, images):
    same = jax.jit(differentiable.AUGMENTATIONS[name])(images, keys(4), jnp.zeros(()))
    np.testing.assert_allclose(same, images, atol=1e-5)


@pytest.fixture(scope='module')
def drawn():
    """{p: matrices of many images}"""
    draw = jax.jit(lambda p: differentiable.places(keys(COUNT), p, SIZE, SIZE))
    return {p: np.asarray(draw(p)) for p in (0.1, 0.5)}


@pytest.mark.parametrize('p', [0.1, 0.5])
def test_images_change_as_often_as_their_changes_say(p, drawn):
    """An image keeps its geometry if nothing is drawn: four changes do nothing in 1/2, 1/4, … of their draws.

    Mirroring is drawn as no change in a half, quarter turns in a quarter, and whole shifts of at most a pixel in a
    quarter. Scaling, rotation, stretching and shifting always change something.
    """
    kept = (1 - p / 2) * (1 - 3 * p / 4) * (1 - 3 * p / 4) * (1 - p) ** 4
    found = np.isclose(drawn[p], np.eye(3), atol=1e-5).all((1, 2)).mean()
    assert found == pytest.approx(kept, abs=4 * np.sqrt(kept * (1 - kept) / COUNT) + 1e-3)


def test_scales_are_log_normal(drawn):
    """The determinant is the square of 1 / 2^(0.2 n) where the image is scaled, for nothing else changes areas."""
    areas = np.log2(np.abs(np.linalg.det(drawn[0.5][:, :2, :2])))
    scaled = np.abs(areas) > 1e-4
    assert scaled.mean() == pytest.approx(0.5, abs=0.08)
    assert areas[scaled].std() == pytest.approx(0.4, rel=0.15) and abs(areas[scaled].mean()) < 0.08


def test_turns_are_uniform_and_stretches_log_normal(drawn):
    """The rotation of the polar decomposition, up to quarter turns, and the ratio of singular values, 2^(2 · 0.2 |n|).

    Either rotation turns an image, and together they do with probability p.
    """
    left, sizes, right = np.linalg.svd(drawn[0.5][:, :2, :2])
    turn, stretch = (left @ right)[:, :, 0], np.log2(sizes[:, 0] / sizes[:, 1])
    angle = np.arctan2(turn[:, 1], turn[:, 0]) % (np.pi / 2)
    turned, stretched = np.minimum(angle, np.pi / 2 - angle) > 1e-3, stretch > 1e-4
    assert turned.mean() == pytest.approx(0.5, abs=0.08) and stretched.mean() == pytest.approx(0.5, abs=0.08)
    assert stats.kstest(angle[turned], stats.uniform(0, np.pi / 2).cdf).pvalue > 1e-3
    assert stats.kstest(stretch[stretched], stats.halfnorm(scale=0.4).cdf).pvalue > 1e-3


def test_hues_turn_around_the_grey_axis_and_luma_is_the_mean(images):
    """Of colours whose grey part the luma flip may turn: lengths across the axis change by saturation alone."""
    many = jnp.broadcast_to(images[:1], (COUNT, *images.shape[1:]))
    out = np.asarray(jax.jit(differentiable.coloured)(many, keys(COUNT), jnp.asarray(0.3)))
    across = lambda x: np.linalg.norm(x - x.mean(-1, keepdims=True), axis=-1)  # noqa: E731
    ratio = across(out) / across(np.asarray(images[:1]))
    np.testing.assert_allclose(ratio.std((1, 2)), 0, atol=1e-3 * ratio.max())
    grey = out.mean(-1).reshape(COUNT, -1)
    fits = [np.polyfit(np.asarray(images[0]).mean(-1).ravel(), row, 1, full=True)[1] for row in grey]
    assert np.max(fits) < 1e-5  # brightness, contrast and the flip are linear in luma
    slope = np.array([np.polyfit(np.asarray(images[0]).mean(-1).ravel(), row, 1)[0] for row in grey])
    assert (slope < 0).mean() == pytest.approx(0.15, abs=0.06)


def test_a_cutout_hides_a_quarter_of_the_image_at_most():
    ones = jnp.ones((COUNT, SIZE, SIZE, 1))
    out = np.asarray(differentiable.cut(ones, keys(COUNT), 1.0))
    hidden = (out == 0).mean((1, 2, 3))
    assert hidden.max() == 0.25 and hidden.min() >= 0.0625 and set(np.unique(out)) == {0, 1}
    assert (np.asarray(differentiable.cut(ones, keys(COUNT), 0.0)) == 1).all()


def test_diffaugment_shifts_by_an_eighth_and_changes_colours_about_their_means():
    """Of a constant image: saturation and contrast change nothing, brightness adds up to a half, the rest are zeros."""
    x = jnp.full((COUNT, 16, 16, 3), 3.0)
    out = np.asarray(jax.jit(differentiable.diffaugment)(x, keys(COUNT), jnp.zeros(())))
    seen = out != 0
    level = np.where(seen, out, np.nan)
    brightness = np.nanmean(level, (1, 2, 3)) - 3
    assert np.nanstd(level, (1, 2, 3)).max() < 1e-5
    assert -0.5 <= brightness.min() < -0.45 and 0.45 < brightness.max() <= 0.5
    assert seen.any(3)[:, 2:-2, 2:-2].mean() < 1 and seen.mean((0, 3))[0, 0] < seen.mean((0, 3))[8, 0]


def test_diffaugment_draws_factors_and_shifts_uniformly():
    """Read off its results: luma is linear at the right shift only, and colours around luma are then proportional."""
    x = np.random.default_rng(1).uniform(-1, 1, (16, 16, 3)).astype(np.float32)
    run = jax.jit(lambda keys: differentiable.diffaugment(jnp.broadcast_to(x, (300, 16, 16, 3)), keys, jnp.zeros(())))
    padded, found = np.pad(x, ((2, 2), (2, 2), (0, 0)), constant_values=np.nan), []
    for out in np.asarray(run(keys(300))):

        def pairs(shift, out=out):
            before = padded[shift // 5 :, shift % 5 :][:16, :16]
            seen = (out != 0).any(-1) & np.isfinite(before[..., 0])
            return before[seen], out[seen]

        lumas = [np.corrcoef(*(values.mean(-1) for values in pairs(shift)))[0, 1] for shift in range(25)]
        before, after = pairs(np.argmax(lumas))
        contrast, offset = np.polyfit(before.mean(-1), after.mean(-1), 1)
        colours, changed = (values - values.mean(-1, keepdims=True) for values in (before, after))
        factor = (colours * changed).sum() / (colours**2).sum()
        np.testing.assert_allclose(changed, factor * colours, atol=1e-4)
        found.append([np.argmax(lumas), offset - x.mean() * (1 - contrast), contrast, factor / contrast, max(lumas)])
    shifts, brightness, contrasts, saturations, fits = np.transpose(found)
    assert fits.min() > 0.9999
    assert stats.chisquare(np.bincount(shifts.astype(int), minlength=25)).pvalue > 1e-3
    for values, low, width in ((brightness, -0.5, 1), (contrasts, 0.5, 1), (saturations, 0, 2)):
        assert stats.kstest(values, stats.uniform(low, width).cdf).pvalue > 1e-3
        assert 0 <= (values.min() - low) / width + 1e-4 < 0.05 and 0.95 < (values.max() - low) / width - 1e-4 <= 1


@pytest.mark.parametrize('name', differentiable.AUGMENTATIONS)
def test_gradients_pass_through(name, images):
    """The slope of a sum of squares at x along d, by differences."""
    augment, x = differentiable.AUGMENTATIONS[name], images[:2]
    value = jax.jit(lambda x: jnp.square(augment(x, keys(2), jnp.asarray(0.8))).sum())
    d = jax.random.normal(jax.random.key(5), x.shape)
    slope = float((jax.grad(value)(x) * d).sum())
    assert slope == pytest.approx(float(value(x + 1e-2 * d) - value(x - 1e-2 * d)) / 2e-2, rel=2e-2, abs=2e-2)
    assert abs(slope) > 1e-2
