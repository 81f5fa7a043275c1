"""Conditions: each kind against a small implementation of its own, what knowing nothing is, and what is refused."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from genbench.data import captions, conditions, sources
from genbench.data.conditions import Form
from genbench.data.spec import TEXT, DataSpec
from genbench.errors import UserError

COLOUR = DataSpec('photos', (8, 12, 3), levels=256, classes=5, fields=(('caption', TEXT), ('weight', 'float32')))
GREY = DataSpec('digits', (8, 8, 1), levels=17, classes=10)


def images(spec, count=6):
    return np.random.default_rng(0).integers(0, spec.levels, (count, *spec.shape)).astype(np.uint8)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def made(name, spec, rows, seed=0):
    """What one condition is made into, (batch, …)."""
    found = conditions.resolve((name,), spec)
    (values,) = conditions.make(found, rows, keys(len(next(iter(rows.values()))), seed)).values()
    (one,) = found.values()
    assert values.shape[1:] == one.form.shape
    return np.asarray(values)


def centres(spec, x):
    return (2 * x.astype(float) + 1) / spec.levels - 1


def crc32(data):
    """IEEE 802.3, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


# Kinds.


def test_a_label_is_the_label_of_the_row():
    labels = np.array([4, 0, 9])
    np.testing.assert_array_equal(made('label', GREY, {'label': labels, 'image': images(GREY, 3)}), labels)


def test_words_are_numbered_by_their_hash_and_filled_with_zeros():
    texts = ['A bold  seven', b'a\tbold seven', 'naïve', '', ' '.join(str(n) for n in range(40))]
    found = captions.words(texts)
    assert found.shape == (5, 16) and found.dtype == np.int32
    for text, row in zip(texts, found, strict=True):
        spelt = (text if isinstance(text, str) else text.decode()).lower().split()[:16]
        assert row.tolist() == [1 + crc32(word.encode()) % 4095 for word in spelt] + [0] * (16 - len(spelt))
    np.testing.assert_array_equal(found[0], found[1])
    assert captions.words([]).shape == (0, 16)


def test_a_caption_is_made_of_the_numbers_of_its_words():
    rows = {'caption': captions.words(['two words', 'three more words'])}
    np.testing.assert_array_equal(made('caption', COLOUR, rows), rows['caption'])


def test_bytes_of_a_caption_are_numbered_from_one_and_filled_with_zeros():
    """The two bytes of ï are 0xC3 and 0xAF."""
    field = 'caption:bytes6'
    texts = ['naïve', b'A b', '', '\0\xff']
    wanted = [[111, 98, 196, 176, 119, 102], [66, 33, 99, 0, 0, 0], [0] * 6, [1, 196, 192, 0, 0, 0]]
    rows = sources.stack([{'image': np.zeros((8, 12, 3), np.uint8), 'caption': text} for text in texts], (field,))
    assert rows[field].dtype == np.int32 and rows[field].tolist() == wanted
    (one,) = conditions.resolve((field,), COLOUR).values()
    assert (one.name, one.fields, one.form) == ('caption', (field,), Form('tokens', (6,), 257))
    np.testing.assert_array_equal(made(field, COLOUR, {field: rows[field]}), wanted)
    np.testing.assert_array_equal(one.read('naïve')[field], wanted[:1])


def test_a_caption_with_too_many_bytes_is_cut_only_where_that_is_asked_for():
    texts = ['bold', 'a bold seven\nwith a long tail, slanted to the right']
    with pytest.raises(
        UserError, match=r"'a bold seven with .*…' has 51 bytes, and this model takes 4.*bytes4:cut"
    ) as why:
        captions.reading('bytes4').numbers(texts)
    assert '\n' not in str(why.value)
    cut = captions.reading('bytes4:cut').numbers(texts)
    assert cut.tolist() == [[99, 112, 109, 101], [98, 33, 99, 112]]
    (one,) = conditions.resolve(('caption:bytes4:cut',), COLOUR).values()
    np.testing.assert_array_equal(one.read('a bold seven')['caption:bytes4:cut'], cut[1:])


def test_a_stated_caption_with_too_many_words_is_refused():
    read = conditions.resolve(('caption',), COLOUR)['caption'].read
    assert np.count_nonzero(read(' '.join('x' * 16))['caption']) == 16
    with pytest.raises(UserError, match="'x x .*' has 17 words, and this model takes 16; shorten it"):
        read(' '.join('x' * 17))


@pytest.mark.parametrize('side', [2, 4])
def test_a_low_resolution_is_pillows_box_filter(side):
    """And is shown at the old size by the nearest neighbour."""
    x = images(COLOUR)
    found = made(f'low_resolution:{side}', COLOUR, {'image': x})
    for image, small in zip(x, found, strict=True):
        for channel in range(3):
            whole = Image.fromarray(centres(COLOUR, image[..., channel]).astype(np.float32))
            shrunk = whole.resize((12 // side, 8 // side), Image.Resampling.BOX)
            wanted = shrunk.resize((12, 8), Image.Resampling.NEAREST)
            np.testing.assert_allclose(small[..., channel], wanted, atol=1e-6)


def test_grey_is_the_mean_of_the_colours():
    x = images(COLOUR)
    np.testing.assert_allclose(made('grey', COLOUR, {'image': x})[..., 0], centres(COLOUR, x).mean(3), atol=1e-6)


@pytest.mark.parametrize('spec', [COLOUR, GREY], ids=lambda spec: spec.name)
def test_edges_are_scipys_sobel_filter(spec):
    x = images(spec)
    for image, found in zip(x, made('edges', spec, {'image': x}), strict=True):
        grey = centres(spec, image).mean(2)
        wanted = np.hypot(*(ndimage.sobel(grey, axis, mode='nearest') for axis in (0, 1))) / 8
        np.testing.assert_allclose(found[..., 0], wanted, atol=1e-5)


@pytest.mark.parametrize('side', [8, 28])
def test_keypoints_are_the_centres_of_mass_of_the_quadrants(side):
    """A dot is looked for at scipy's centre of mass, and its brightness is read off at the nearest pixel."""
    spec, half = DataSpec('ink', (side, side, 1), levels=256), side // 2
    x = np.random.default_rng(1).integers(0, 256, (5, side, side, 1)).astype(np.uint8)
    x[:, half:, :half] = 0
    x[0, half + 1, 1] = 200  # less than a twentieth of the ink
    radius, corners = max(1, side / 8), [(0, 0), (0, half), (half, half)]
    for image, found in zip(x, made('keypoints', spec, {'image': x}), strict=True):
        ink = image[..., 0].astype(float)
        places = [
            np.add(corner, ndimage.center_of_mass(ink[corner[0] :, corner[1] :][:half, :half])) for corner in corners
        ]
        away = np.min([np.hypot(*(np.indices((side, side)) - place[:, None, None])) for place in places], axis=0)
        np.testing.assert_allclose(found[..., 0], np.maximum(1 - away / radius, 0), atol=1e-4)
        assert found.max() > 0.25 and not found[half:, :half].any()


def test_keypoints_are_where_the_only_pixels_are_and_an_empty_image_has_none():
    x = np.zeros((2, 8, 12, 3), np.uint8)
    at = [(1, 2), (2, 9), (7, 0), (4, 6)]
    for row, column in at:
        x[0, row, column] = 90
    found = made('keypoints', COLOUR, {'image': x})
    assert sorted(zip(*np.nonzero(found[0, ..., 0]), strict=True)) == sorted(at) and found[0].max() == 1
    assert not found[1].any()


@pytest.mark.parametrize(('number', 'size'), [('', (4, 6)), (':25', (4, 6)), (':60', (6, 9)), (':1', (1, 1))])
def test_a_mask_hides_a_rectangle_of_the_share_that_is_named(number, size):
    x = images(COLOUR, 400)
    found, corners = made(f'masked{number}', COLOUR, {'image': x}), set()
    known = found[..., 3]
    np.testing.assert_allclose(found[..., :3], np.where(known[..., None] == 1, centres(COLOUR, x), 0), atol=1e-6)
    for mask in known:
        rows, columns = np.nonzero(mask == 0)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == size and len(rows) == size[0] * size[1]
        corners.add((rows.min(), columns.min()))
    places = (8 - size[0] + 1) * (12 - size[1] + 1)
    assert len(corners) == pytest.approx(places * (1 - (1 - 1 / places) ** 400), abs=4)  # of 400 places at random


def test_a_degraded_image_is_what_its_problem_shows():
    """Means over squares are the low resolution, and a hidden half comes with its mask."""
    x = images(COLOUR)
    low = made('low_resolution:2', COLOUR, {'image': x})
    np.testing.assert_allclose(made('degraded:pool2', COLOUR, {'image': x}), low, atol=1e-5)
    half = made('degraded:half', COLOUR, {'image': x})
    np.testing.assert_allclose(half[:, :4, :, :3], centres(COLOUR, x)[:, :4], atol=1e-6)
    assert not half[:, 4:].any() and (half[:, :4, :, 3] == 1).all()
    blurred = np.stack(
        [ndimage.gaussian_filter(one, (1, 1, 0), mode='reflect', truncate=8) for one in centres(COLOUR, x)]
    )
    np.testing.assert_allclose(made('degraded:blur1', COLOUR, {'image': x}), blurred, atol=1e-4)


def test_a_weight_of_guidance_is_uniform_over_its_range_in_training_and_zero_otherwise():
    found = conditions.resolve(('guidance_weight:1-3',), GREY)
    rows = {'image': jnp.asarray(images(GREY, 4000))}
    told = conditions.augmented(found, rows, jax.random.key(0))
    np.testing.assert_array_equal(told['image'], rows['image'])
    weights = np.sort(conditions.make(found, told, keys(4000))['guidance_weight'])
    np.testing.assert_allclose(weights, np.linspace(1, 3, 4000), atol=0.06)
    assert not conditions.make(found, rows, keys(4000))['guidance_weight'].any()
    assert made('guidance_weight', GREY, found['guidance_weight'].read('1.5')) == [1.5]
    for text in ('0.5', '3.1', 'nan', 'heavy'):
        with pytest.raises(UserError, match='was trained with guidance weights from 1 to 3'):
            found['guidance_weight'].read(text)


def test_what_is_drawn_for_an_image_follows_from_its_own_key():
    x = images(GREY, 20)
    whole = made('masked', GREY, {'image': x})
    one = conditions.resolve(('masked',), GREY)['masked']
    alone = conditions.make({'masked': one}, {'image': x[7:9]}, keys(20)[7:9])['masked']
    np.testing.assert_array_equal(alone, whole[7:9])
    assert (made('masked', GREY, {'image': x}, seed=1) != whole).any()


# What users write.


def test_what_is_written_for_a_label_or_a_caption_is_what_the_rows_hold():
    found = conditions.resolve(('label', 'caption'), COLOUR)
    assert found['label'].read('3')['label'].tolist() == [3]
    np.testing.assert_array_equal(found['caption'].read('A red bird')['caption'], captions.words(['a red bird']))


@pytest.mark.parametrize('spec', [COLOUR, GREY], ids=lambda spec: spec.name)
def test_a_picture_of_an_image_is_read_as_that_image(spec, tmp_path):
    for index, x in enumerate(images(spec)):
        shades = np.round(x * (255 / (spec.levels - 1))).astype(np.uint8)
        path = str(tmp_path / f'{index}.png')
        Image.fromarray(shades[..., 0] if spec.shape[2] == 1 else shades).save(path)
        rows = conditions.resolve(('low_resolution',), spec)['low_resolution'].read(path)
        np.testing.assert_array_equal(rows['image'], x[None])


def test_a_colour_picture_is_read_as_grey_where_the_data_are_grey(tmp_path):
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(tmp_path / 'white.png')
    rows = conditions.resolve(('masked',), GREY)['masked'].read(str(tmp_path / 'white.png'))
    np.testing.assert_array_equal(rows['image'], np.full((1, 8, 8, 1), 16))


def test_what_is_no_picture_of_the_datas_size_is_refused(tmp_path):
    read = conditions.resolve(('low_resolution',), COLOUR)['low_resolution'].read
    Image.fromarray(np.zeros((12, 8, 3), np.uint8)).save(tmp_path / 'turned.png')
    Image.fromarray(np.zeros((8, 12), np.uint16)).save(tmp_path / 'deep.png')
    Image.fromarray(images(COLOUR)[0]).save(tmp_path / 'half.png')
    (tmp_path / 'half.png').write_bytes((tmp_path / 'half.png').read_bytes()[:100])
    (tmp_path / 'text.png').write_text('no picture')
    os.mkfifo(tmp_path / 'pipe.png')
    with pytest.raises(UserError, match='turned.png has 8×12 pixels; the images of photos have 12×8'):
        read(str(tmp_path / 'turned.png'))
    with pytest.raises(UserError, match='deep.png has more than 8 bits'):
        read(str(tmp_path / 'deep.png'))
    for name in ('half.png', 'text.png', 'pipe.png', 'nowhere.png', ''):
        with pytest.raises(UserError, match='cannot be read as a picture'):
            read(str(tmp_path / name))


@pytest.mark.parametrize('text', ['5', '-1', '1.0', 'cat', '', '²'])
def test_what_is_no_label_is_refused(text):
    with pytest.raises(UserError, match='not a label; the labels of photos are 0 to 4'):
        conditions.resolve(('label',), COLOUR)['label'].read(text)


# Knowing nothing.


def test_a_class_of_its_own_or_zeros_stand_for_knowing_nothing():
    forms = [Form('classes', (), 7), Form('tokens', (3,), 50), Form('image', (2, 2, 1)), Form('vector', (4,))]
    wanted = [np.full(5, 7), np.zeros((5, 3)), np.zeros((5, 2, 2, 1)), np.zeros((5, 4))]
    for form, null in zip(forms, wanted, strict=True):
        np.testing.assert_array_equal(form.null(5), null)
        assert form.null(5).dtype == (jnp.int32 if form.size else jnp.float32)


def test_dropping_replaces_everything_that_an_image_is_told():
    found = conditions.resolve(('label', 'caption', 'masked'), COLOUR)
    rows = {'label': np.arange(6) % 5, 'caption': captions.words(['some words'] * 6), 'image': images(COLOUR)}
    given, dropped = conditions.make(found, rows, keys(6)), np.array([0, 1, 1, 0, 0, 1], bool)
    assert list(given) == ['label', 'caption', 'masked']
    left = conditions.drop(found, given, jnp.asarray(dropped))
    for name, values in given.items():
        null = np.asarray(found[name].form.null(6))
        np.testing.assert_array_equal(left[name][dropped], null[dropped])
        np.testing.assert_array_equal(left[name][~dropped], values[~dropped])
        assert (np.asarray(values) != null).any(axis=tuple(range(1, values.ndim))).all()
    assert conditions.drop({}, None, jnp.asarray(dropped)) is None


def test_a_condition_that_is_not_there_is_heard_as_nothing():
    form, given = Form('tokens', (2,), 9), {'caption': np.ones((3, 2), int)}
    np.testing.assert_array_equal(conditions.told(given, 'caption', form, 3), given['caption'])
    for nothing in (None, {}, {'label': np.zeros(3)}):
        np.testing.assert_array_equal(conditions.told(nothing, 'caption', form, 3), np.zeros((3, 2)))


def test_a_part_that_is_too_short_begins_again():
    given = {'label': np.arange(10), 'grey': np.arange(20).reshape(10, 2)}
    part = conditions.cut(given, 7, 12)
    assert part['label'].tolist() == [7, 8, 9, 7, 8]
    np.testing.assert_array_equal(part['grey'], given['grey'][[7, 8, 9, 7, 8]])
    assert conditions.cut(None, 0, 5) is None


def test_a_model_without_conditions_is_told_nothing():
    assert conditions.make({}, {'image': images(GREY)}, keys(6)) is None


def test_combinations_of_classes_are_numbered_one_by_one():
    forms = {'label': Form('classes', (), 3), 'style': Form('classes', (), 4)}
    labels, styles = np.divmod(np.arange(12), 4)
    assert conditions.combinations(forms) == 12 and conditions.combinations({}) == 1
    np.testing.assert_array_equal(conditions.combined(forms, {'label': labels, 'style': styles}, 12), np.arange(12))
    np.testing.assert_array_equal(conditions.combined({}, None, 4), np.zeros(4))


# What a config may name.


def test_conditions_are_found_in_the_order_of_their_names():
    found = conditions.resolve(('grey', 'label', 'low_resolution:2'), COLOUR)
    assert list(found) == ['grey', 'label', 'low_resolution'] and conditions.resolve((), GREY) == {}
    assert [one.form for one in found.values()] == [
        Form('image', (8, 12, 1)), Form('classes', (), 5), Form('image', (8, 12, 3)),
    ]  # fmt: skip
    assert [one.fields for one in found.values()] == [('image',), ('label',), ('image',)]


@pytest.mark.parametrize(
    ('names', 'spec', 'why'),
    [
        (('captoin',), COLOUR, "There is no condition 'captoin'.*Did you mean caption"),
        (('label', 'label'), COLOUR, 'names label twice'),
        (('low_resolution:2', 'low_resolution:4'), COLOUR, 'names low_resolution twice'),
        (('label',), DataSpec('faces', (8, 8, 3), 256), 'needs labels, but faces has none'),
        (('caption',), GREY, 'text field "caption".*digits has none'),
        (('caption',), DataSpec('odd', (8, 8, 3), 256, fields=(('caption', 'int32'),)), 'odd has none'),
        (('grey',), GREY, 'those of digits are grey'),
        (('low_resolution:3',), COLOUR, 'sides divisible by 3; photos has 8×12'),
        (('caption:64',), COLOUR, 'caption:64; write caption for words, or caption:bytesN'),
        (('caption:bytes0',), COLOUR, 'N from 1 to 4096'),
        (('caption:bytes9:cat',), COLOUR, 'caption:bytes9:cat; write'),
        (('low_resolution:1',), COLOUR, 'should be between 2 and 8'),
        (('low_resolution:x',), COLOUR, 'low_resolution:x; the number should be between 2 and 8'),
        (('masked:0',), COLOUR, 'between 1 and 99'),
        (('masked:100',), COLOUR, 'between 1 and 99'),
        (('degraded',), COLOUR, 'write degraded:PROBLEM'),
        (('degraded:noise',), COLOUR, 'write degraded:PROBLEM'),
        (('degraded:hlaf',), COLOUR, "There is no problem 'hlaf'.*half"),
        (('masked:-5',), COLOUR, 'between 1 and 99'),
        (('label:3',), COLOUR, 'label takes no number'),
        (('edges:3',), COLOUR, 'edges takes no number'),
        (('guidance_weight:4',), COLOUR, 'guidance_weight:4; write a range LOW-HIGH'),
        (('guidance_weight:3-1',), COLOUR, 'write a range LOW-HIGH within 0 to 60'),
        (('',), COLOUR, "There is no condition ''"),
    ],
)
def test_what_the_data_do_not_have_is_refused(names, spec, why):
    with pytest.raises(UserError, match=why) as found:
        conditions.resolve(names, spec)
    assert '\n' not in str(found.value)


def test_a_caption_for_a_model_without_conditions_is_refused_by_the_name_of_its_flag():
    with pytest.raises(UserError, match='which takes no condition that --given or --caption can set'):
        conditions.stated({}, 'caption=a bold seven', 1)
