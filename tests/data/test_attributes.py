"""Attributes of images, by images that are drawn with them, and the captions that data sets get."""

import numpy as np
import pytest

from genbench.data import attributes, sources


def line(shift, slope, height=9, width=21):
    """A line with one pixel of ink 10 in each row, which moves to the right by `slope` a row upwards."""
    image = np.zeros((1, height, width, 1), np.uint8)
    for row in range(height):
        image[0, row, width // 2 + shift + slope * (height // 2 - row)] = 10
    return image


@pytest.mark.parametrize(('shift', 'slope'), [(0, 0), (-2, 1), (3, -1), (1, 2)])
def test_a_line_has_the_slant_place_and_ink_it_is_drawn_with(shift, slope):
    image = line(shift, slope)
    assert attributes.slant(image) == pytest.approx(slope)
    assert attributes.place(image) == pytest.approx(10 + shift)
    assert (attributes.ink(image), attributes.area(image), attributes.brightness(image)) == (90, 9, 10)


def test_an_empty_image_has_finite_attributes():
    for template in (attributes.DIGITS, attributes.FASHION):
        for measure, _, _ in template.attributes.values():
            assert np.isfinite(measure(np.zeros((2, 8, 8, 1), np.uint8))).all()


def test_captions_say_what_is_above_the_median():
    images = np.concatenate([line(0, 0), line(1, 1), line(2, 2)])
    medians = attributes.DIGITS.medians(images)
    above = attributes.DIGITS.above(images, medians)
    assert medians == pytest.approx({'ink': 90, 'slant': 1, 'place': 11})
    said = [attributes.DIGITS.say(7, {name: values[number] for name, values in above.items()}) for number in range(3)]
    assert said == ['a thin upright seven on the left'] * 2 + ['a thin slanted seven on the right']


def test_described_digits_are_the_digits_with_captions_that_their_images_obey(digits, tmp_path):
    builder = sources.open_builder('described_digits', str(tmp_path))
    medians = attributes.DIGITS.medians(digits[1].images)
    for split, plain in (('train', digits[1]), ('test', digits[2])):
        rows = [builder.as_data_source(split)[number] for number in range(0, len(plain), 50)]
        np.testing.assert_array_equal([row['image'] for row in rows], plain.images[::50])
        above = attributes.DIGITS.above(plain.images[::50], medians)
        for number, row in enumerate(rows):
            words = {name: values[number] for name, values in above.items()}
            assert row['caption'].decode() == attributes.DIGITS.say(int(row['label']), words)
