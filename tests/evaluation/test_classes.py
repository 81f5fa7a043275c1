"""The classes that a classifier sees in samples."""

import itertools

import numpy as np
import pytest

from genbench import evaluation
from genbench.errors import UserError
from genbench.evaluation import scoring
from genbench.evaluation.features import network
from genbench.evaluation.scoring import Extracted, Scene


def logits(classes, number):
    return 5.0 * np.eye(number)[np.asarray(classes)]


def test_the_distance_is_the_largest_difference_of_any_event():
    """Total variation by its definition, max over sets A of classes of |P(A) − Q(A)|, by trying all of them."""
    draw = np.random.default_rng(0)
    real, fake = draw.integers(0, 5, 300), draw.choice(5, 200, p=[0.5, 0.3, 0.2, 0, 0])
    events = itertools.chain.from_iterable(itertools.combinations(range(5), size) for size in range(6))
    wanted = max(abs(np.isin(real, event).mean() - np.isin(fake, event).mean()) for event in map(list, events))
    found, shares = evaluation.class_distance(logits(real, 5), logits(fake, 5))
    assert found == pytest.approx(wanted)
    assert shares['classes'][3:] == [0, 0] and sum(shares['real_classes']) == pytest.approx(1)


def test_sets_of_the_same_classes_are_as_far_apart_as_is_said():
    draw = np.random.default_rng(1)
    found = [
        evaluation.class_distance(*(logits(draw.integers(0, 10, 1000), 10) for _ in range(2)))[0] for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(np.sqrt(9 / (np.pi * 1000)), rel=0.1)


def test_the_metric_states_how_often_the_classifier_is_right_about_the_reference():
    net = network.known_by_name('some', {}, ('features', 'logits'))
    real = {'logits': logits([0, 1, 1, 2], 3), 'labels': np.array([0, 1, 2, 2])}
    fake = {'logits': logits([0, 0, 0, 0], 3)}
    scene = Scene(net, Extracted({}, real, {}, 4), None, Extracted({}, fake, {}, 4))
    row = scoring.score({'class_distance': [scene]})['class_distance']
    assert row['value'] == 0.75
    assert row['details'] == {'real_classes': [[0.25, 0.5, 0.25]], 'classes': [[1, 0, 0]], 'accuracy': [0.75]}


def test_features_without_classes_are_refused():
    with pytest.raises(UserError, match="class_distance needs the output 'logits'"):
        scoring.check_names(['class_distance'], network.known_by_name('pixels', {}))
