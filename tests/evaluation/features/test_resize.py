"""Resizing against the rules written out, Pillow, and what torch recorded."""

import numpy as np
import pytest
from PIL import Image

from genbench.evaluation.features import dinov2, resize

SIZES = [(32, 299), (28, 299), (299, 299), (330, 299), (1, 5), (500, 224)]


def noise(*shape):
    return np.random.Generator(np.random.Philox(3)).integers(0, 256, shape, dtype=np.uint8)


def at(row, position):
    """The value of a row at a fractional position, past its end that of its last pixel."""
    low = int(np.floor(position))
    high = min(low + 1, len(row) - 1)
    return row[low] + (row[high] - row[low]) * (position - low)


@pytest.mark.parametrize(('inputs', 'outputs'), SIZES)
def test_bilinear_rules(inputs, outputs):
    row = noise(inputs).astype(np.float64)
    tf1 = [at(row, i * inputs / outputs) for i in range(outputs)]
    half = [at(row, max(0.0, (i + 0.5) * inputs / outputs - 0.5)) for i in range(outputs)]
    np.testing.assert_allclose(resize.tf1_bilinear(inputs, outputs) @ row, tf1, atol=0.01)  # float32 positions
    np.testing.assert_allclose(resize.half_pixel_bilinear(inputs, outputs) @ row, half, atol=0.01)


RULES = {'ttur': resize.tf1_bilinear, 'pytorch-fid': resize.half_pixel_bilinear, 'clean': resize.pillow_bicubic}


@pytest.mark.parametrize('convention', RULES)
def test_pixels_are_those_of_the_tools(recorder, recorded, convention):
    """What torch-fidelity, PyTorch and clean-fid make of columns of noise, within a few roundings of float32."""
    for length in recorder.LENGTHS:
        image = recorder.column(length)[None, ..., :1].astype(np.float32)
        rows, columns = (RULES[convention](size, 299) for size in image.shape[1:3])
        found = np.clip(np.asarray(resize.resample(image, rows, columns))[0, :, 0, 0], 0, 255)
        np.testing.assert_allclose(found, recorded[f'{convention}/column {length}'], atol=7e-5, err_msg=str(length))


@pytest.mark.parametrize('shape', [(32, 32, 3), (28, 20, 1), (310, 400, 3), (299, 60, 1), (299, 299, 3)])
def test_bicubic_is_pillows(shape):
    image = noise(*shape)
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(shape[2])]
    wanted = np.stack([plane.resize((299, 299), Image.Resampling.BICUBIC) for plane in planes], -1)
    rows, columns = (resize.pillow_bicubic(length, 299) for length in shape[:2])
    found = np.asarray(resize.resample(image[None].astype(np.float32), rows, columns))[0]
    np.testing.assert_allclose(found, wanted, atol=2e-3)  # of 255, where Pillow sums in double precision
    assert np.abs(found - wanted).mean() < 1e-4


@pytest.mark.parametrize('shape', [(32, 32, 3), (28, 20, 3), (310, 400, 3), (224, 100, 3)])
def test_8bit_bicubic_is_pillows_bit_for_bit(shape):
    image = noise(*shape)
    wanted = Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)
    rows, columns = (resize.pillow_bicubic(length, 224) for length in shape[:2])
    np.testing.assert_array_equal(np.asarray(resize.resample_8bit(image[None], rows, columns))[0], wanted)


def test_position_embeddings_are_resized_as_torch_does(recorded):
    grid = np.random.Generator(np.random.Philox(2)).standard_normal((1, 2, 37, 37), np.float32)
    tokens = grid.transpose(0, 2, 3, 1).reshape(1, 37**2, 2)
    first = np.full((1, 1, 2), 5.0, np.float32)
    found = dinov2.fitted_positions(np.concatenate([first, tokens], axis=1), 16)
    np.testing.assert_array_equal(found[:, :1], first)
    wanted = recorded['positions'].transpose(0, 2, 3, 1).reshape(1, 16**2, 2)
    np.testing.assert_allclose(found[:, 1:], wanted, atol=3e-6)
