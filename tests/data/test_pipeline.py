"""The order of training images and the feeds that deliver it."""

import dataclasses

import jax
import numpy as np
import pytest

from genbench.data.captions import words
from genbench.data.pipeline import Batches, Order, ResidentFeed, StreamedFeed, flip, padded_batches
from genbench.data.sources import Arrays

SIZE, BATCH = 23, 7  # batches straddle the ends of epochs


def arrays(size=SIZE):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 4, 4, 3)).astype(np.uint8)
    return Arrays(images, np.arange(size, dtype=np.int32))


def records(data):
    return [{'image': image, 'label': label} for image, label in zip(data.images, data.labels, strict=True)]


def delivered(feed, step):
    batch = jax.jit(feed.batch)(feed.constants, feed.inputs(step))
    return {name: np.asarray(values) for name, values in batch.items()}


def assert_equal_batches(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype == np.int32
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize('epoch', [0, 1, 5])
def test_each_epoch_is_a_permutation(epoch):
    indices = Order(SIZE, seed=3).indices(epoch * SIZE, SIZE)
    np.testing.assert_array_equal(np.sort(indices), np.arange(SIZE))


def test_epochs_and_seeds_have_their_own_permutations():
    first = Order(SIZE, seed=3).indices(0, SIZE)
    assert (first != Order(SIZE, seed=3).indices(SIZE, SIZE)).any()
    assert (first != Order(SIZE, seed=4).indices(0, SIZE)).any()


def test_an_index_is_a_function_of_seed_and_position_alone():
    whole = Order(SIZE, seed=3).indices(0, 4 * SIZE)
    for position in (70, 0, 22, 23, 46):
        assert Order(SIZE, seed=3).indices(position, 1) == whole[position]
    np.testing.assert_array_equal(Order(SIZE, seed=3).indices(20, 50), whole[20:70])


@pytest.mark.parametrize(
    'workers, steps',
    [(0, (0, 1, 2, 3, 9, 10, 2)), (2, (5, 6, 7, 8))],  # in sequence, ahead and back, as after a restart
)
def test_resident_and_streamed_feeds_deliver_equal_batches(workers, steps):
    data, order = arrays(), Order(SIZE, seed=1)
    resident = ResidentFeed(data, order, BATCH)
    streamed = StreamedFeed(records(data), order, BATCH, threads=2, ahead=3, workers=workers)
    for step in steps:
        assert_equal_batches(delivered(resident, step), delivered(streamed, step))
    streamed.close()


def test_batches_of_changing_size_take_one_position_after_the_other():
    data, order, sizes = arrays(), Order(SIZE, seed=1), [6] * 3 + [2] + [4] * 4
    batches = Batches(((0, 6), (3, 2), (4, 4)))
    feeds = ResidentFeed(data, order, batches), StreamedFeed(records(data), order, batches, threads=1, ahead=2)
    for feed in feeds:
        labels = [delivered(feed, step)['label'] for step in range(len(sizes))]
        assert [len(part) for part in labels] == sizes
        np.testing.assert_array_equal(np.concatenate(labels), data.labels[order.indices(0, sum(sizes))])
        again = delivered(feed, 3)  # as after a restart
        np.testing.assert_array_equal(again['label'], labels[3])
    feeds[1].close()


def test_feeds_bring_the_fields_that_are_asked_for_and_no_others():
    """Texts as the numbers of their words, numbers as they are; also of rows by number, to look at."""
    data, order = arrays(), Order(SIZE, seed=1)
    captions = [f'image number {index}' for index in range(SIZE)]
    weights = np.random.default_rng(1).normal(size=(SIZE, 2))
    source = [{**record, 'caption': caption.encode(), 'weight': weight, 'id': 'never read'}
              for record, caption, weight in zip(records(data), captions, weights, strict=True)]  # fmt: skip
    fields = {'caption': words(captions), 'weight': weights}
    for chosen in ((), ('caption',), ('weight', 'caption')):
        held = dataclasses.replace(data, fields={name: fields[name] for name in chosen})
        feeds = (ResidentFeed(held, order, BATCH), StreamedFeed(source, order, BATCH, threads=1, fields=chosen))
        for feed in feeds:
            batch, taken = delivered(feed, 4), order.indices(4 * BATCH, BATCH)
            shown = feed.rows(np.array([3, 20]))
            assert set(batch) == set(shown) == {'image', 'label', *chosen}
            np.testing.assert_array_equal(batch['label'], taken)
            for name in chosen:
                np.testing.assert_allclose(batch[name], fields[name][taken], rtol=1e-6)
                np.testing.assert_array_equal(shown[name], fields[name][[3, 20]])
            assert batch.get('weight', np.float32(0)).dtype == np.float32
            feed.close()


def test_a_feed_puts_its_batches_on_the_devices_it_is_given():
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    feed = StreamedFeed(records(arrays()), Order(SIZE, seed=1), BATCH, place, threads=1, ahead=1)
    assert all(values.sharding == place for values in feed.inputs(3).values())


def test_a_batch_larger_than_the_data_runs_on_into_the_next_epoch():
    data = arrays(5)
    labels = delivered(ResidentFeed(data, Order(5, seed=0), 10), 0)['label']
    np.testing.assert_array_equal(np.sort(labels), np.repeat(np.arange(5), 2))


def test_a_batch_keeps_images_with_their_labels():
    data = arrays()
    batch = delivered(ResidentFeed(data, Order(SIZE, seed=1), BATCH), 4)
    np.testing.assert_array_equal(batch['image'], data.images[batch['label']])


def test_unlabelled_images_get_label_zero():
    source = [{'image': image} for image in arrays().images]
    batch = delivered(StreamedFeed(source, Order(SIZE, seed=1), BATCH, threads=1, ahead=1), 0)
    np.testing.assert_array_equal(batch['label'], np.zeros(BATCH))


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    images = arrays(400).images
    flipped = np.asarray(flip(images, jax.random.key(0)))
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250  # five standard deviations


@pytest.mark.parametrize('batch_size', [1, 7, 23, 50])
def test_padded_batches_cover_every_image_once_in_order(batch_size):
    data = dataclasses.replace(arrays(), fields={'weight': np.random.default_rng(1).normal(size=(SIZE, 2))})
    batches = list(padded_batches(data, batch_size))
    rows, masks, indices = zip(*batches, strict=True)
    images, labels, weights = (np.concatenate([row[name] for row in rows]) for name in ('image', 'label', 'weight'))
    assert all(len(row['image']) == batch_size for row in rows)
    masks, indices = np.concatenate(masks), np.concatenate(indices)
    np.testing.assert_array_equal(indices[masks], np.arange(SIZE))
    np.testing.assert_array_equal(images[masks], data.images)
    np.testing.assert_array_equal(labels[masks], data.labels)
    np.testing.assert_array_equal(weights[masks], data.fields['weight'])
