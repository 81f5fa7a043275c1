"""Copies of train images are found, and fresh draws of the same distribution are not taken for copies."""

import numpy as np
import pytest

from genbench.evaluation import memorisation, neighbours


def draws(*sizes, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(size, d)) for size in sizes]


@pytest.mark.parametrize('tile', [50, 2048])
@pytest.mark.parametrize('noise', [0, 1e-3])
def test_copies_are_flagged_and_named(monkeypatch, noise, tile):
    monkeypatch.setattr(neighbours, 'TILE', tile)
    train, test, fresh, jitter = draws(300, 200, 100, 100)
    copied = np.arange(250, 150, -1)
    found = memorisation(train, test, np.concatenate([train[copied] + noise * jitter, fresh]))
    np.testing.assert_array_equal(found.nearest[:100], copied)
    assert found.flagged[:100].all() and found.flagged[100:].mean() < 0.1
    assert found.copied == found.flagged.mean()
    assert (found.ratio[:100] <= 100 * noise).all()
    assert found.train_test_gap < -5
    assert found.authenticity < found.held_out_authenticity / 2 + 0.1


def test_fresh_draws_look_like_the_held_out_images():
    """Flagged at about 1%, and a train-against-test gap of about N(0, 1)."""
    found = [memorisation(*draws(300, 300, 300, seed=seed)) for seed in range(20)]
    assert np.mean([part.copied for part in found]) == pytest.approx(0.01, abs=0.008)
    gaps = np.array([part.train_test_gap for part in found])
    assert abs(gaps.mean()) < 4 / np.sqrt(20) and 0.4 < gaps.std() < 2.5
    differences = [part.authenticity - part.held_out_authenticity for part in found]
    assert np.mean(differences) == pytest.approx(0, abs=0.03)


def test_samples_that_miss_the_data_are_authentic_and_far_from_train():
    train, test, fake = draws(200, 100, 100)
    found = memorisation(train, test, 4 * fake)
    assert found.authenticity > 0.95 and found.copied == 0 and found.train_test_gap > 5


def test_the_numbers_are_those_of_the_definitions():
    train, test, fake = draws(40, 30, 25, d=3)
    found = memorisation(train.astype(np.float32), test.astype(np.float32), fake.astype(np.float32))

    def to_train(points):
        return np.linalg.norm(points[:, None] - train, axis=2)

    spacing = to_train(train) + np.diag(np.full(40, np.inf))
    distances, held_out = to_train(fake), to_train(test).min(1)
    np.testing.assert_array_equal(found.nearest, distances.argmin(1))
    np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-4)
    np.testing.assert_allclose(found.ratio, distances.min(1) / spacing.min(1)[distances.argmin(1)], rtol=1e-4)
    assert found.authenticity == np.mean(distances.min(1) > spacing.min(1)[distances.argmin(1)])
    above = np.mean(distances.min(1)[:, None] > held_out)
    assert found.train_test_gap == pytest.approx((above - 0.5) / np.sqrt((25 + 30 + 1) / (12 * 25 * 30)))


def test_a_copy_of_an_image_that_is_twice_in_train_is_a_copy():
    train, test = draws(100, 100)
    train[50:60] = train[:10]
    found = memorisation(train, test, train[:10])
    assert found.flagged.all() and found.authenticity == 0 and (found.ratio == 0).all()
