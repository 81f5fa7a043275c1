"""Data sets by name: the embedded digits, official sets where they lie prepared, mistakes with names and folders."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from sklearn import datasets

from genbench.data import sources
from genbench.data.spec import TEXT
from genbench.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
OFFICIAL = pathlib.Path(os.environ.get('GENBENCH_TEST_DATA') or ROOT.parent / 'shared' / 'data' / 'tfds')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture(scope='module')
def digits(folder):
    return sources.open_builder('digits', folder)


def test_digits_are_scikit_learns_split_by_writer(digits):
    train, test = sources.load(digits, 'train'), sources.load(digits, 'test')
    assert (len(train), len(test)) == (1437, 360)
    images, labels = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]).reshape(-1, 64), images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)


def test_digits_have_17_levels_and_10_classes(digits):
    spec = sources.spec_of(digits)
    assert (spec.name, spec.shape, spec.levels, spec.classes) == ('digits', (8, 8, 1), 17, 10)
    images = sources.load(digits, 'train').images
    assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, spec.levels - 1)


def test_the_caption_of_a_digit_is_its_name_and_whether_it_has_more_ink_than_most(digits):
    """Than half of the train images, whichever split it is in."""
    assert sources.spec_of(digits).fields == (('caption', TEXT),)
    names = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    images, labels = datasets.load_digits(return_X_y=True)
    ranks = np.searchsorted(np.sort(images[:1437].sum(1)), images.sum(1))  # how many train images have less ink
    wanted = [f'a {"bold" if rank > 718 else "thin"} {names[label]}' for rank, label in zip(ranks, labels, strict=True)]
    found = [row['caption'].decode() for split in ('train', 'test') for row in digits.as_data_source(split)]
    assert found == wanted
    assert 600 < sum(caption.startswith('a bold') for caption in found[:1437]) <= 718


def test_the_words_of_the_captions_have_numbers_of_their_own(digits):
    caption = sources.load(digits, 'train', ('caption',)).fields['caption']
    assert len(np.unique(caption[:, :3])) == 13 and len(np.unique(caption, axis=0)) == 20
    assert not caption[:, 3:].any() and (caption[:, :3] > 0).all()


def test_fields_that_are_not_asked_for_are_not_kept(digits):
    assert sources.load(digits, 'test').fields == {}
    part = sources.load(digits, 'test', ('caption',)).part(slice(3, 5))
    assert len(part) == 2 and part.columns().keys() == {'image', 'label', 'caption'}


def test_noise_has_the_shapes_of_real_rows(digits):
    spec = sources.spec_of(digits)
    real, noise = sources.load(digits, 'test[:9]', ('caption',)).columns(), sources.noise(spec, 9, ('caption',))
    for name, values in noise.columns().items():
        assert (values.shape, values.dtype) == (real[name].shape, real[name].dtype)
    assert noise.images.max() < 17 and noise.labels.max() < 10


class Feature:
    def __init__(self, shape, np_dtype):
        self.shape, self.np_dtype = shape, np_dtype


class Text(Feature):
    """As TFDS calls it."""


@pytest.mark.parametrize(
    ('feature', 'kind'),
    [
        (Text((), object), TEXT),
        (Feature((), np.int64), 'int64'),
        (Feature((4, 4, 3), np.uint8), 'uint8'),
        (Feature((2,), np.float32), 'float32'),
        (Feature((None,), np.int64), ''),
        (Feature((), object), ''),
        (Feature({'box': (4,)}, {'box': np.float32}), ''),
    ],
)
def test_fields_of_numbers_and_texts_are_told_from_what_cannot_be_stacked(feature, kind):
    assert sources.kind(feature) == kind


def test_a_slice_of_a_split_is_its_first_images(digits):
    part, whole = sources.load(digits, 'train[:100]'), sources.load(digits, 'train')
    assert len(part) == 100
    np.testing.assert_array_equal(part.images, whole.images[:100])
    np.testing.assert_array_equal(part.labels, whole.labels[:100])


def test_preparing_twice_finds_the_same_folder(digits, folder):
    assert sources.prepare('digits', folder) == sources.prepare('digits', folder) == str(digits.data_path)
    assert any(line.split() == ['digits', str(digits.data_path)] for line in sources.prepared(folder))


def test_an_unknown_split_names_those_that_exist(digits):
    with pytest.raises(UserError, match="no split 'validation'.*train, test"):
        sources.load(digits, 'validation')


def test_an_unknown_data_set_is_answered_with_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="'fashon_mnist'.*Did you mean.*fashion_mnist"):
        sources.open_builder('fashon_mnist', str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / 'nowhere'
    with pytest.raises(UserError, match=f'{missing}.*data.data_dir.*does not exist'):
        sources.open_builder('mnist', str(missing))


def test_an_unprepared_data_set_names_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError, match=f'genbench data prepare mnist --data_dir={tmp_path}'):
        sources.open_builder('mnist', str(tmp_path))


def test_a_set_without_images_is_refused(tmp_path):
    class Builder:
        name = 'speech'
        info = type('Info', (), {'features': {'audio': None}, 'metadata': None})

    with pytest.raises(UserError, match='speech has no feature "image"'):
        sources.spec_of(Builder)


@pytest.mark.parametrize(
    ('name', 'shape', 'train_size', 'test_labels'),
    [
        ('mnist', (28, 28, 1), 60_000, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ('fashion_mnist', (28, 28, 1), 60_000, [1000] * 10),
        ('cifar10', (32, 32, 3), 50_000, None),  # copies with a part of its test split are in use
    ],
)
def test_official_sets_have_their_published_sizes(name, shape, train_size, test_labels):
    if not (OFFICIAL / name).is_dir():
        pytest.skip(f'{name} is not prepared in {OFFICIAL} (GENBENCH_TEST_DATA)')
    builder = sources.open_builder(name, str(OFFICIAL))
    spec, test = sources.spec_of(builder), sources.load(builder, 'test')
    assert (spec.shape, spec.levels, spec.classes) == (shape, 256, 10)
    assert builder.info.splits['train'].num_examples == train_size
    assert test.images.shape == (builder.info.splits['test'].num_examples, *shape)
    assert (test.images.dtype, test.images.min(), test.images.max()) == (np.uint8, 0, 255)
    assert set(test.labels) == set(range(10))
    if test_labels:
        np.testing.assert_array_equal(np.bincount(test.labels), test_labels)


@pytest.fixture
def damaged(digits, folder, tmp_path):
    """`damaged(name, content)` → a copy of the folder, one of whose files holds something else; None for a pipe."""

    def make(name, content):
        copy = shutil.copytree(folder, tmp_path / 'copy')
        file = copy / pathlib.Path(digits.data_path).relative_to(folder) / name
        file.unlink()
        if content is None:
            os.mkfifo(file)
        else:
            file.write_bytes(content)
        return str(copy)

    return make


DAMAGED = [b'', b'null', b'3', b'"x"', b'{', b'[' * 100_000, b'\xff', None]
EMPTY = [b'{}', b'[]']  # TFDS reads both as no metadata, which a data set of 256 levels need not have


@pytest.mark.parametrize(
    ('name', 'content'),
    [*(('metadata.json', one) for one in DAMAGED), *(('dataset_info.json', one) for one in [*DAMAGED, *EMPTY])],
)
def test_damaged_metadata_is_one_sentence(damaged, name, content):
    with pytest.raises(UserError) as error:
        sources.spec_of(sources.open_builder('digits', damaged(name, content)))
    assert len(str(error.value).splitlines()) == 1 and 'digits' in str(error.value)


@pytest.mark.parametrize('levels', ['17', 0, -3, 1, 2.5, None, 10**9])
def test_levels_that_cannot_be_are_refused(damaged, levels):
    folder = damaged('metadata.json', json.dumps({'levels': levels}).encode())
    with pytest.raises(UserError, match='metadata.json of digits .* is damaged'):
        sources.spec_of(sources.open_builder('digits', folder))


@pytest.mark.parametrize('content', [b'', b'x' * 100_000, None])
def test_damaged_records_are_one_sentence(damaged, content):
    folder = damaged('digits-train.array_record-00000-of-00001', content)
    with pytest.raises(UserError, match='digits') as error:
        sources.load(sources.open_builder('digits', folder), 'train')
    assert len(str(error.value).splitlines()) == 1


def test_images_are_counted_without_being_read(digits):
    for split in ('train', 'test[:10]', 'train+test', 'train[:50%]'):
        assert sources.count(digits, split) == len(sources.load(digits, split))
    for split in ('validation', 'train[', 'test[:0]'):
        with pytest.raises(UserError, match='digits has no'):
            sources.count(digits, split)
        with pytest.raises(UserError, match='digits has no'):
            sources.load(digits, split)
