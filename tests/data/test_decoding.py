"""Files of every kind against the pixels that they were written from."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from genbench.data import decoding
from genbench.data.decoding import DEEP, FIRST, LAID, PALETTE, PRINT, TURNED, Unreadable

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]


def file(image, kind='PNG', **more):
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def read(source, channels=3):
    """(pixels, what was done)"""
    found, done = decoding.plain(decoding.read(source)[0], channels)
    return np.asarray(found), done


def test_plain_pictures_come_as_they_are():
    pixels, done = read(file(Image.fromarray(COLOUR)))
    np.testing.assert_array_equal(pixels, COLOUR)
    assert done == set()
    np.testing.assert_array_equal(read(file(Image.fromarray(GREY)), 1)[0], GREY)
    np.testing.assert_array_equal(read(file(Image.fromarray(GREY)), 3)[0], np.stack([GREY] * 3, -1))
    np.testing.assert_array_equal(read(COLOUR)[0], COLOUR)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_turned_as_their_exif_says(orientation):
    """By the definition of EXIF's tag 0x0112: which sides of the scene the first row and the first column are."""
    scene = COLOUR
    stored = {
        1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: scene.swapaxes(0, 1),
        6: np.rot90(scene, 1), 7: scene[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(scene, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    pixels, done = read(data)
    np.testing.assert_array_equal(pixels, scene)
    assert done == (set() if orientation == 1 else {TURNED})
    assert decoding.turned_size(decoding.read(data)[0]) == scene.shape[:2]


def test_transparent_pixels_are_laid_on_white():
    alpha = np.random.default_rng(1).integers(0, 256, GREY.shape).astype(np.uint8)
    pixels, done = read(file(Image.fromarray(np.dstack([COLOUR, alpha]))))
    share = alpha[..., None] / 255
    np.testing.assert_allclose(pixels, COLOUR * share + 255 * (1 - share), atol=1)
    assert done == {LAID}
    pixels, done = read(file(Image.fromarray(np.dstack([GREY, alpha]))), 1)
    np.testing.assert_allclose(pixels, GREY * share[..., 0] + 255 * (1 - share[..., 0]), atol=1)


def test_palettes_are_looked_up_and_their_transparent_colour_is_white():
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), 'P')
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    np.testing.assert_array_equal(read(file(picture))[0], [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]])
    pixels, done = read(file(picture, transparency=1))
    np.testing.assert_array_equal(pixels[:, 1], [[255] * 3] * 2)
    assert done == {PALETTE, LAID}


def test_sixteen_bits_become_eight():
    deep = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    pixels, done = read(file(Image.fromarray(deep)), 1)
    np.testing.assert_allclose(pixels, deep / 65535 * 255, atol=0.501)
    assert done == {DEEP}
    np.testing.assert_allclose(read(np.stack([deep] * 3, -1))[0][..., 1], deep / 65535 * 255, atol=0.501)


def test_bilevel_and_printed_pictures_have_colours():
    bits = GREY > 127
    np.testing.assert_array_equal(read(file(Image.fromarray(bits)), 1)[0], 255 * bits)
    flat = Image.new('CMYK', (8, 8), (255, 0, 0, 0))
    pixels, done = read(file(flat, 'JPEG', quality=100))
    np.testing.assert_allclose(pixels, np.broadcast_to([0, 255, 255], (8, 8, 3)), atol=3)
    assert done == {PRINT}


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new('P', (4, 4), number) for number in (0, 1)]
    for frame in frames:
        frame.putpalette([1, 2, 3, 200, 201, 202])
    pixels, done = read(file(frames[0], 'GIF', save_all=True, append_images=frames[1:]))
    assert (pixels == [1, 2, 3]).all() and FIRST in done


def test_what_cannot_be_read_says_why(tmp_path):
    whole = file(Image.fromarray(COLOUR.repeat(20, 0)))
    os.mkfifo(tmp_path / 'pipe.png')
    floats = file(Image.fromarray(GREY.astype(np.float32)), 'TIFF')
    for source, why in [
        (b'', 'not a picture that Pillow can read'), (b'GIF89a', 'not a picture'), (whole[:200], 'truncated'),
        (floats, 'floats'),
        (tmp_path / 'pipe.png', 'not a regular file'), (tmp_path / 'nowhere.png', 'not a regular file'),
        (np.zeros((2, 2, 5), np.uint8), '.'),
    ]:  # fmt: skip
        with pytest.raises(Unreadable, match=why):
            read(source)


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    data = file(Image.new('1', (400, 400)))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(Unreadable, match='too many pixels'):
        read(data)


def test_a_picture_with_damaged_exif_is_read():
    image = Image.fromarray(COLOUR)
    out = io.BytesIO()
    image.save(out, 'PNG', exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    np.testing.assert_array_equal(read(out.getvalue())[0], COLOUR)
