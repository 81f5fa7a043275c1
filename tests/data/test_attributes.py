"""Attributes of images, by images that are drawn with them, and the captions that data sets get."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from genbench.data import attributes, sources
from genbench.errors import UserError


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


@pytest.fixture
def garments(tmp_path):
    """A folder with a data set called fashion_mnist of a few squares, 28×28, and (size, light, label) of each."""
    few = {'train': [(4, 50, 0), (4, 90, 8), (8, 50, 1), (8, 90, 7), (6, 70, 2)], 'test': [(5, 60, 9), (7, 71, 4)]}

    def rows(split):
        for number, (size, light, label) in enumerate(few[split]):
            image, file = np.zeros((28, 28), np.uint8), io.BytesIO()
            image[number : number + size, 3 : 3 + size] = light
            Image.fromarray(image).save(file, 'PNG')
            yield number, {'image': io.BytesIO(file.getvalue()), 'label': label}

    class FashionMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version('3.0.1')

        def _info(self):
            image = tfds.features.Image(shape=(28, 28, 1))
            features = {'image': image, 'label': tfds.features.ClassLabel(num_classes=10)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features),
                                         disable_shuffling=True)  # fmt: skip

        def _split_generators(self, dl_manager):
            return {split: rows(split) for split in few}

        def _generate_examples(self):
            raise NotImplementedError

    FashionMnist(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    return tmp_path, few


def test_described_garments_are_those_of_the_same_folder_and_compared_with_its_train_split(garments):
    """The medians of the train squares are a light of 70 and a side of 6."""
    folder, few = garments
    builder = sources.open_builder('described_fashion_mnist', str(folder))
    plain = sources.open_builder('fashion_mnist', str(folder))
    for split, squares in few.items():
        rows = list(builder.as_data_source(split))
        found = sources.load(plain, split)
        np.testing.assert_array_equal([row['image'] for row in rows], found.images)
        np.testing.assert_array_equal([row['label'] for row in rows], found.labels)
        said = [row['caption'].decode().split(maxsplit=3) for row in rows]
        assert [(light == 'bright', size == 'large') for _, light, size, _ in said] == [
            (light > 70, size > 6) for size, light, _ in squares
        ]
    assert [name for *_, name in said] == ['boot', 'coat']


def test_described_garments_need_those_without_captions(tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    with pytest.raises(UserError, match='Run: genbench data prepare fashion_mnist'):
        sources.open_builder('described_fashion_mnist', str(tmp_path))
