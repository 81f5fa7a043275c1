"""Crops against small implementations on arrays, and what they say no to."""

import numpy as np
import pytest
from PIL import Image

from genbench.data import crops
from genbench.data.recipe import Recipe
from genbench.errors import UserError

LANCZOS, BICUBIC, BOX = Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def made(crop, x, size, resample=LANCZOS, upscale=False):
    return np.asarray(crops.CROPS[crop].make(Image.fromarray(x), size, resample, upscale))


def resized(x, height, width, resample):
    return np.asarray(Image.fromarray(x).resize((width, height), resample))


def halved(x):
    """Means of 2×2 pixels, an odd last row or column left to the filter's share: only for even sides."""
    height, width, _ = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, 3).astype(float).mean((1, 3))


@pytest.mark.parametrize('crop', ['center', 'edm'])
@pytest.mark.parametrize('shape', [(50, 71), (71, 50), (51, 70), (40, 40)])
def test_the_centre_crop_is_the_one_of_edm(crop, shape):
    """As the paper's tool cuts: from (side − crop) // 2 to (side + crop) // 2 of both sides, then Lanczos."""
    x = noise(*shape)
    side = min(shape)
    (top, bottom), (left, right) = (((length - side) // 2, (length + side) // 2) for length in shape)
    np.testing.assert_array_equal(made(crop, x, (16, 16)), resized(x[top:bottom, left:right], 16, 16, LANCZOS))


@pytest.mark.parametrize(('shape', 'size'), [((90, 120), (30, 20)), ((90, 120), (20, 30)), ((61, 200), (20, 40))])
def test_the_centre_crop_keeps_the_proportions_that_are_wanted(shape, size):
    """A ramp along each side is a ramp over the middle part afterwards."""
    share = min(shape[0] / size[0], shape[1] / size[1])
    for axis in (0, 1):
        ramp = np.arange(shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1))
        x = np.broadcast_to(ramp, shape).astype(np.uint8)
        found = np.asarray(crops.CROPS['center'].make(Image.fromarray(x), size, BOX, False)).astype(float)
        middle, half = (shape[axis] - 1) / 2, share * (size[axis] - 1) / 2
        wanted = np.linspace(middle - half, middle + half, size[axis])
        np.testing.assert_allclose(found.mean(1 - axis), wanted, atol=1.01)


@pytest.mark.parametrize(('shape', 'halvings'), [((32, 48), 1), ((96, 64), 2), ((16, 20), 0), ((31, 16), 0)])
def test_the_crop_of_adm_halves_by_means_while_it_can(shape, halvings):
    """Of sizes that leave nothing to the bicubic filter, which is then the identity."""
    x = noise(*shape)
    wanted = x.astype(float)
    for _ in range(halvings):
        wanted = np.floor(halved(wanted) + 0.5)
    top, left = ((length - 16) // 2 for length in wanted.shape[:2])
    found = made('adm', x, (16, 16), BICUBIC)
    off = np.abs(found - wanted[top : top + 16, left : left + 16])
    assert off.max() <= halvings  # Pillow rounds after each side of a halving, the means above after both


def test_the_crop_of_adm_ends_with_a_bicubic_filter_of_the_whole_picture():
    x = noise(50, 71)
    half = resized(x, 25, 35, BOX)
    wanted = resized(half, 16, 22, BICUBIC)[:, 3:19]
    np.testing.assert_array_equal(made('adm', x, (16, 16), BICUBIC), wanted)


def test_filters_do_not_alias():
    """A checkerboard of single pixels is grey at a quarter of its size, by every filter but the nearest neighbour."""
    x = np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) % 2 * np.uint8(255)
    for name, resample in crops.FILTERS.items():
        found = made('center', x.astype(np.uint8), (16, 16), resample)
        assert (np.ptp(found) == 0 and found.max() in (0, 255)) == (name == 'nearest')
        assert name == 'nearest' or np.abs(found[2:-2, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize('crop', crops.CROPS)
def test_smaller_pictures_are_enlarged_only_when_asked(crop):
    for shape in ((15, 40), (40, 15)):
        with pytest.raises(crops.TooSmall):
            made(crop, noise(*shape), (16, 16))
        assert made(crop, noise(*shape), (16, 16), upscale=True).shape == (16, 16, 3)
    assert made(crop, noise(16, 16), (16, 16)).shape == (16, 16, 3)


def test_a_picture_of_the_size_is_not_changed():
    x = noise(16, 16)
    for crop in crops.CROPS:
        np.testing.assert_array_equal(made(crop, x, (16, 16)), x)


@pytest.mark.parametrize(
    ('recipe', 'why'),
    [
        (Recipe(size=(1, 2, 3)), 'one number for squares, or a height and a width'),
        (Recipe(size=(0,)), 'should be at least 1'),
        (Recipe(crop='adm'), 'have no effect without data.size'),
        (Recipe(upscale=True), 'have no effect without data.size'),
        (Recipe(size=(8, 16), crop='adm'), 'makes squares'),
        (Recipe(size=(8,), crop='adm', resize='box'), 'always uses the filter bicubic'),
        (Recipe(size=(8,), crop='middle'), 'data.crop is .middle'),
        (Recipe(size=(8,), resize='lanczo'), 'Did you mean lanczos'),
        (Recipe(channels=2), '1 .grey., 3 .colour. or 0'),
        (Recipe(test_share=1.0), 'data.test_share is 1.0'),
    ],
)
def test_a_recipe_that_does_not_fit_together_is_refused(recipe, why):
    with pytest.raises(UserError, match=why) as found:
        recipe.check()
    assert '\n' not in str(found.value)


def test_recipes_of_other_pixels_have_other_names():
    names = [one.name for one in (Recipe(), Recipe(size=(64,)), Recipe(size=(64, 64)), Recipe(size=(64, 48)),
             Recipe(size=(64,), crop='adm'), Recipe(size=(64,), resize='box', upscale=True, channels=1))]  # fmt: skip
    assert names == ['', '64-center-lanczos', '64-center-lanczos', '64x48-center-lanczos', '64-adm-bicubic',
                     '64-center-box-upscaled-grey']  # fmt: skip
    assert Recipe(size=(64,)).digest == Recipe(size=(64, 64), resize='lanczos').digest != Recipe(size=(65,)).digest
    assert Recipe(size=(64, 48), upscale=True, test_share=0.2).flags == ' --size=64,48 --upscale --test-share=0.2'
