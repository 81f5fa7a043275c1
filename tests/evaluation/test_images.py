"""Images from folders and arrays: what is read is what was written, and what cannot be is one clear line."""

import numpy as np
import pytest
from PIL import Image

from genbench.errors import UserError
from genbench.evaluation import images

DRAWN = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), np.uint8)


def write(folder, pixels=DRAWN, names='abcde'):
    folder.mkdir(exist_ok=True)
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image.squeeze()).save(folder / f'{name}.png')
    return folder


def read(image_set):
    return np.concatenate(list(image_set.batches()))


@pytest.mark.parametrize('channels', [1, 3])
def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, channels):
    found = images.folder(write(tmp_path / 'x', DRAWN[..., :channels], 'edcba'))
    np.testing.assert_array_equal(read(found), DRAWN[::-1, ..., :channels])
    assert found.count == 5


def test_folders_below_are_read_too(tmp_path):
    write(tmp_path / 'x')
    write(tmp_path / 'x' / 'more')
    assert images.folder(tmp_path / 'x').count == 10


@pytest.mark.parametrize('suffix', ['npy', 'npz'])
def test_an_array_is_read_as_it_is(tmp_path, suffix):
    path = tmp_path / f'x.{suffix}'
    np.save(path, DRAWN) if suffix == 'npy' else np.savez(path, images=DRAWN, labels=np.zeros(5))
    np.testing.assert_array_equal(read(images.array(path)), DRAWN)


def test_grey_arrays_need_no_channel_axis(tmp_path):
    np.save(tmp_path / 'x.npy', DRAWN[..., 0])
    np.testing.assert_array_equal(read(images.array(tmp_path / 'x.npy')), DRAWN[..., :1])


@pytest.mark.parametrize(
    ('encode', 'said'),
    [
        (lambda x: x / 255, '[0, 1]'),
        (lambda x: x / 127.5 - 1, '[−1, 1]'),
        (lambda x: x.astype(np.float32), 'whole numbers in 0 … 255'),
        (lambda x: x.astype(np.int64), 'whole numbers in 0 … 255'),
    ],
)
def test_known_ranges_are_rounded_back_and_named(tmp_path, encode, said):
    np.save(tmp_path / 'x.npy', encode(DRAWN))
    found = images.array(tmp_path / 'x.npy')
    np.testing.assert_array_equal(read(found), DRAWN)
    assert said in found.description['values']


def test_levels_beside_the_images_scale_them(tmp_path):
    np.savez(tmp_path / 'x.npz', images=np.arange(17).reshape(17, 1, 1, 1), levels=17)
    np.testing.assert_array_equal(read(images.array(tmp_path / 'x.npz')).ravel(), np.round(np.arange(17) * 255 / 16))


def deep(folder):
    Image.fromarray(DRAWN[0, ..., 0].astype(np.uint16)).save(folder / 'f.png')


def truncated(folder):
    whole = (folder / 'b.png').read_bytes()
    (folder / 'b.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'd.png').write_text('no picture')


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (deep, 'f.png in .* has the mode I;16, not 8 bits per channel'),
        (truncated, '2 of 5 images in .* cannot be read: b.png, d.png'),
    ],
)
def test_a_folder_that_cannot_be_says_why(tmp_path, spoil, words):
    folder = write(tmp_path / 'x')
    spoil(folder)
    with pytest.raises(UserError, match=words):
        read(images.folder(folder))


def test_unreadable_files_may_be_left_out_and_are_counted(tmp_path):
    folder = write(tmp_path / 'x')
    truncated(folder)
    found = images.folder(folder, skip_unreadable=True)
    np.testing.assert_array_equal(read(found), DRAWN[[0, 2, 4]])
    assert found.description['unreadable_skipped'] == 2


def test_grey_palette_and_transparent_images_are_read_as_clean_fid_reads_them(tmp_path):
    """Image.open(…).convert('RGB'): a palette by its colours, alpha left out, grey three times."""
    colour, half = Image.fromarray(DRAWN[0]), np.full((6, 4, 1), 100, np.uint8)
    palette = colour.quantize(8)
    palette.save(tmp_path / 'b.png')
    Image.fromarray(np.concatenate([DRAWN[1], half], -1), 'RGBA').save(tmp_path / 'c.png')
    Image.fromarray(DRAWN[2, ..., 0]).save(tmp_path / 'd.png')
    found = images.folder(write(tmp_path, DRAWN[:1], 'a'))
    shades = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(palette)]
    grey = np.repeat(DRAWN[2, ..., :1], 3, -1)
    np.testing.assert_array_equal(read(found), np.stack([DRAWN[0], shades, DRAWN[1], grey]))
    assert found.description['converted'] == 'L, P, RGB, RGBA to RGB by Pillow, alpha left out'


def test_images_of_several_sizes_come_in_batches_of_one(tmp_path):
    folder = write(tmp_path / 'x')
    Image.fromarray(DRAWN[0, :3]).save(folder / 'bb.png')
    found = images.folder(folder)
    assert found.shape is None and 'several' in found.description['sizes']
    assert [part.shape for part in found.batches()] == [(2, 6, 4, 3), (1, 3, 4, 3), (3, 6, 4, 3)]


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(UserError, match='has no images'):
        images.folder(tmp_path)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        (DRAWN / 100.0, 'float64 values from .* to'),
        (DRAWN.astype(np.int64) * 2, 'int64 values'),
        (np.full((2, 4, 4, 3), np.nan), 'contains NaN or infinity'),
        (DRAWN[..., :2], 'shape'),
        (DRAWN[:0], 'shape'),
        (np.array(['a']), 'shape'),
        (np.array([{}], object), 'cannot be read'),
    ],
)
def test_an_array_that_cannot_be_says_why(tmp_path, values, words):
    np.save(tmp_path / 'x.npy', values, allow_pickle=True)
    with pytest.raises(UserError, match=words):
        images.array(tmp_path / 'x.npy')


def test_a_torn_array_file_is_said(tmp_path):
    np.savez(tmp_path / 'x.npz', images=DRAWN)
    whole = (tmp_path / 'x.npz').read_bytes()
    (tmp_path / 'x.npz').write_bytes(whole[:100])
    with pytest.raises(UserError, match='cannot be read as an array'):
        images.array(tmp_path / 'x.npz')


@pytest.mark.parametrize('address', ['tfds:digits', 'tfds::train'])
def test_a_data_set_has_a_name_and_a_split(address):
    with pytest.raises(UserError, match='tfds:NAME:SPLIT'):
        images.data_set(address, '')


def test_a_slice_of_a_split_is_an_input():
    assert images.data_set('tfds:digits:train[:50]', '').count == 50


def test_a_data_set_is_scaled_to_255(digits):
    found = read(images.data_set('tfds:digits:test', ''))
    assert found.shape == digits[2].images.shape
    np.testing.assert_array_equal(found, np.round(digits[2].images * (255 / 16)))
