"""Grids of samples: no ragged last row where a number of images can be laid out without."""

import numpy as np
import pytest
from PIL import Image

from genbench.training import sampling


@pytest.mark.parametrize(('count', 'columns'), [(1, 1), (7, 7), (10, 10), (16, 4), (64, 8), (100, 10), (1024, 32)])
def test_common_numbers_are_laid_out_near_to_a_square(count, columns):
    assert sampling.columns_for(count) == columns


def test_the_last_row_is_whole_wherever_a_divisor_is_near_the_root():
    for count in range(11, 400):
        divides = [n for n in range(1, count + 1) if count % n == 0 and count**0.5 / 2 <= n <= 2 * count**0.5]
        columns = sampling.columns_for(count)
        assert count**0.5 / 2 <= columns <= 2 * count**0.5
        assert bool(divides) == (count % columns == 0)


def test_a_picture_of_64_samples_has_no_empty_place(digits, tmp_path):
    sampling.save_grid(tmp_path / 'grid.png', np.full((64, 8, 8, 1), 16), digits[0])
    pixels = np.asarray(Image.open(tmp_path / 'grid.png'))
    assert pixels.shape[0] == pixels.shape[1]
    gaps = (pixels == 96).all(-1)
    assert not (pixels[~gaps] != 255).any() and gaps.mean() < 0.2
