"""95% intervals hold the truth 95 ± 2 times in a hundred, whatever varied: training, sampling, halves or test images.

The oracle is a simulation. A number is a sum of normal effects: of the training seed, of the noise of a set of samples
or of the half of the held-out split that it meets (which seeds share or not), and of noise of its own; the truth is 0.
"""

import numpy as np
import pytest

from genbench.evaluation import statistics
from genbench.report.cells import BY_NAME, Cell, Way

TIMES = 2000
NOMINAL = pytest.approx(0.95, abs=0.02)


def sampled(rng, *, seeds=3, sets=3, training=0.0, keyed='by seed', noise=0.0, own=0.0):
    """(TIMES, seeds, sets) numbers of sets of samples."""
    shape = (TIMES, 1 if keyed == 'alike' else seeds, sets)
    return (
        training * rng.normal(size=(TIMES, seeds, 1))
        + noise * rng.normal(size=shape)
        + own * rng.normal(size=(TIMES, seeds, sets))
    )


def scored(rng, *, seeds=3, training=0.0, images=0.0, own=0.0, count=100):
    """(TIMES, seeds, count) log-likelihoods of test images that all seeds share."""
    return (
        training * rng.normal(size=(TIMES, seeds, 1))
        + images * rng.normal(size=(TIMES, 1, count))
        + own * rng.normal(size=(TIMES, seeds, count))
    )


def distance_row(sets, seed, keyed='by seed', halves=''):
    """A result row of one training seed, as `scoring.score` writes it; `halves` names the key of the real halves."""
    sd = float(np.std(sets, ddof=1)) if len(sets) > 1 else None
    protocol = {'seed': 0, **({'noise': 'evaluation.seed and train.seed'} if keyed == 'by seed' else {})}
    protocol |= {halves: {'split': 'test', 'drawn': 'a half for each set', 'half_seed': 0}} if halves else {}
    return {
        'kind': 'distance', 'value': float(np.mean(sets)), 'values': list(map(float, sets)), 'sd': sd, 'n': 500,
        'std_err': None if sd is None else sd / len(sets) ** 0.5, 'protocol': protocol, 'train_seed': seed,
    }  # fmt: skip


def likelihood_row(images, seed):
    """A result row of one training seed, as the harness writes it."""
    error = float(np.std(images, ddof=1)) / len(images) ** 0.5
    return {'kind': 'exact', 'value': float(np.mean(images)), 'values': None, 'sd': None, 'n': len(images),
            'std_err': error, 'protocol': {'seed': 0, 'split': 'test'}, 'train_seed': seed}  # fmt: skip


def cell(rows):
    metric = BY_NAME['bits_per_dim' if rows[0]['kind'] == 'exact' else 'fd']
    return Cell('a', metric, Way(None, None), tuple(rows))


def held(intervals, truths=None):
    """How often an interval holds the truth."""
    truths = np.zeros(len(intervals)) if truths is None else truths
    return float(np.mean([low <= truth <= high for (low, high), truth in zip(intervals, truths, strict=True)]))


def cells_of(numbers, keyed, halves=''):
    return [cell([distance_row(sets, seed, keyed, halves) for seed, sets in enumerate(one)]) for one in numbers]


@pytest.mark.parametrize('sets', [1, 3])
@pytest.mark.parametrize('effects', [{'training': 1, 'noise': 1}, {'training': 0.1, 'noise': 1}, {'noise': 1}])
def test_seeds_with_samples_of_their_own(effects, sets):
    numbers = sampled(np.random.default_rng(0), sets=sets, **effects)
    assert held([one.interval for one in cells_of(numbers, 'by seed')]) == NOMINAL


@pytest.mark.parametrize(
    'effects',
    [{'noise': 1}, {'training': 0.3, 'noise': 1, 'own': 0.2}, {'training': 2, 'noise': 1}],
    ids=str,
)
@pytest.mark.parametrize(('seeds', 'sets'), [(3, 3), (3, 10), (5, 5)])
def test_seeds_that_were_sampled_with_the_same_noise(effects, seeds, sets):
    """The first is a fit without chance, such as the Gaussian's: its seeds agree to the last digit."""
    numbers = sampled(np.random.default_rng(1), seeds=seeds, sets=sets, keyed='alike', **effects)
    assert held([one.interval for one in cells_of(numbers, 'alike')]) == NOMINAL


def halved(rng, training, half, own, **sizes):
    """Set k of every seed meets half k; samples have noise of their own."""
    return sampled(rng, keyed='alike', training=training, noise=half, own=own, **sizes)


@pytest.mark.parametrize('effects', [(0.1, 1, 1), (2, 1, 1), (0.1, 0.2, 1), (0.1, 0.5, 2), (0.1, 1, 0.2)], ids=str)
@pytest.mark.parametrize(('seeds', 'sets'), [(3, 3), (3, 8), (5, 8), (10, 8)])
def test_seeds_that_meet_the_same_reference_halves(effects, seeds, sets):
    numbers = halved(np.random.default_rng(8), *effects, seeds=seeds, sets=sets)
    found = held([one.interval for one in cells_of(numbers, 'by seed', 'reference')])
    assert found == pytest.approx(0.95, abs=0.025)  # the rule for degrees of freedom keeps to 93 to 97


@pytest.mark.parametrize('effects', [(0.1, 1, 1), (2, 1, 1), (0.1, 0.5, 2), (0.1, 1, 0.2)], ids=str)
def test_two_sets_are_few_to_learn_from_what_halves_do(effects):
    """The noise of samples is counted twice, and there is one degree of freedom."""
    found = cells_of(halved(np.random.default_rng(8), *effects, seeds=3, sets=2), 'by seed', 'reference')
    assert 0.91 <= held([one.interval for one in found]) <= 0.995


def test_what_halves_do_is_said():
    found = cells_of(halved(np.random.default_rng(8), 0.1, 1, 1, seeds=3, sets=3), 'by seed', 'reference')
    assert found[0].estimate.varied == ('training', 'sampling', 'reference halves')
    assert found[0].estimate.missing == ('other held-out images',)
    assert found[0].estimate.sd > found[0].estimate.sd_seeds


def test_halves_beside_the_reference_are_shared_too():
    """Those that a score tells samples from, such as the two-sample test's."""
    numbers = sampled(np.random.default_rng(9), seeds=5, sets=8, keyed='alike', training=0.1, noise=1)
    found = cells_of(numbers, 'by seed', 'held_out')
    assert held([one.interval for one in found]) == NOMINAL


@pytest.mark.parametrize('own', [0.2, 1.0, 3.0])
def test_paired_differences_hold_what_is_left_of_the_halves(own):
    """A half shifts the two variants, each in its own strength; samples have noise of their own."""
    rng = np.random.default_rng(10)
    half = sampled(rng, sets=8, keyed='alike', noise=1)
    pairs = [half * strength + sampled(rng, sets=8, training=0.2, own=own) for strength in (1.0, 0.5)]
    intervals = []
    for ours, theirs in zip(*(cells_of(numbers, 'by seed', 'reference') for numbers in pairs), strict=True):
        difference = statistics.paired(ours.by_seed, theirs.by_seed)
        intervals.append(difference.interval())
    assert held(intervals) == NOMINAL
    assert difference.varied == ('training', 'sampling', 'reference halves')


def test_rows_that_do_not_list_their_sets_are_covered_too():
    numbers = sampled(np.random.default_rng(2), seeds=3, sets=5, keyed='alike', training=0.3, noise=1)
    found = cells_of(numbers, 'alike')
    bare = [cell([{**row, 'values': None} for row in one.rows]) for one in found]
    assert held([one.interval for one in bare]) == NOMINAL


@pytest.mark.parametrize('sets', [2, 3, 10])
def test_one_seed_with_sets_says_where_its_own_mean_is_and_leaves_out_training(sets):
    numbers = sampled(np.random.default_rng(3), seeds=1, sets=sets, noise=1)
    found = cells_of(numbers, 'by seed')
    assert held([one.interval for one in found]) == NOMINAL
    assert (found[0].estimate.varied, found[0].estimate.missing) == (('sampling',), ('training',))


@pytest.mark.parametrize('seeds', [1, 3])
@pytest.mark.parametrize('effects', [{'images': 1, 'own': 0.2}, {'images': 1, 'training': 0.2, 'own': 0.1}], ids=str)
def test_likelihoods_hold_for_new_test_images(effects, seeds):
    if seeds == 1:
        effects = {**effects, 'training': 0.0}
    numbers = scored(np.random.default_rng(4), seeds=seeds, **effects)
    found = [cell([likelihood_row(images, seed) for seed, images in enumerate(one)]) for one in numbers]
    assert held([one.interval for one in found]) == NOMINAL


@pytest.mark.parametrize('keyed', ['by seed', 'alike'])
def test_paired_differences_of_distances(keyed):
    """Both variants meet the same noise, each in its own strength, so that a part of it cancels."""
    rng = np.random.default_rng(5)
    noise = sampled(rng, keyed=keyed, noise=1)
    pairs = [noise * strength + sampled(rng, training=0.1, own=0.1) for strength in (1.0, 0.6)]
    intervals, first = [], []
    for ours, theirs in zip(*(cells_of(numbers, keyed) for numbers in pairs), strict=True):
        intervals.append(statistics.paired(ours.by_seed, theirs.by_seed).interval())
        first.append(ours.interval)
    assert held(intervals) == NOMINAL
    assert np.mean(np.ptp(intervals, axis=1)) < np.mean(np.ptp(first, axis=1))  # what they share cancels


def test_paired_differences_of_likelihoods_are_of_these_test_images():
    rng = np.random.default_rng(6)
    images = rng.normal(size=(2, TIMES, 1, 100)) * np.array([1.0, 0.7])[:, None, None, None]
    intervals = []
    for ours, theirs in zip(*(image + scored(rng, training=0.1) for image in images), strict=True):
        a, b = (cell([likelihood_row(values, seed) for seed, values in enumerate(one)]) for one in (ours, theirs))
        intervals.append(statistics.paired(a.by_seed, b.by_seed).interval())
    truths = images[0].mean((1, 2)) - images[1].mean((1, 2))
    assert held(intervals, truths) == NOMINAL


@pytest.mark.parametrize('spreads', [(1.0, 1.0), (1.0, 0.3)], ids=str)
def test_equal_variants_are_called_as_good_as_each_other(spreads):
    """Over seeds of one and sets of the other, too."""
    rng = np.random.default_rng(7)
    one = cells_of(sampled(rng, seeds=5, training=spreads[0], noise=0.1), 'by seed')
    other = cells_of(sampled(rng, seeds=1, sets=5, noise=spreads[1]), 'by seed')
    found = [statistics.difference(a.estimate, b.estimate).interval() for a, b in zip(one, other, strict=True)]
    assert held(found) == NOMINAL


def test_what_is_not_known_is_said():
    (once,) = cells_of(np.zeros((1, 3, 1)) + [[[1.0], [1.1], [1.2]]], 'alike')
    assert once.estimate.missing == ('sampling',)
    (halved,) = cells_of(np.zeros((1, 3, 1)) + [[[1.0], [1.1], [1.2]]], 'by seed', 'reference')
    assert halved.estimate.varied == ('training', 'sampling')
    assert halved.estimate.missing == ('reference halves', 'other held-out images')
    (single,) = cells_of(np.array([[[1.0, 1.1, 1.2]]]), 'by seed', 'reference')
    assert single.estimate.varied == ('sampling', 'reference halves')
    assert single.estimate.missing == ('training', 'other held-out images')
    (alone,) = cells_of(np.ones((1, 1, 1)), 'by seed')
    assert alone.interval is None and alone.estimate.missing == ('training', 'sampling')
    cost = cell([{'kind': 'cost', 'value': value, 'protocol': {}, 'train_seed': value} for value in (1.0, 2.0)])
    assert cost.estimate.missing == () and cost.estimate.varied == ('training',)
