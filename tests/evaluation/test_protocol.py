"""A protocol is an object: equal when all its values are, and it says what differs and whether that forbids ranking."""

import json

import pytest

from genbench.errors import UserError
from genbench.evaluation import protocol
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.results import Results, complete

VALUES = {'sampler': 'heun', 'nfe': 9, 'num_samples': 1000, 'reference': {'split': 'train', 'n': 50000}}


def test_the_hash_is_of_the_values_not_of_their_order():
    turned = {
        'reference': {'n': 50000, 'split': 'train'},
        **{key: VALUES[key] for key in ('num_samples', 'nfe', 'sampler')},
    }
    assert Protocol(VALUES) == Protocol(turned) == VALUES
    assert Protocol(VALUES).hash == Protocol(turned).hash


@pytest.mark.parametrize('change', [{'nfe': 10}, {'reference': {'split': 'test', 'n': 50000}}, {'extra': None}])
def test_any_other_value_is_another_hash(change):
    assert Protocol({**VALUES, **change}) != Protocol(VALUES)


def test_the_difference_names_nested_keys():
    other = {**VALUES, 'reference': {'split': 'test', 'n': 50000}, 'seed': 1}
    assert Protocol(VALUES).difference(other) == {'reference.split': ('train', 'test'), 'seed': (None, 1)}


def test_tuples_and_lists_are_one_after_a_file():
    assert Protocol({'a': (1, 2)}).hash == Protocol(json.loads(json.dumps({'a': (1, 2)}))).hash


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({}, 'The protocols are the same'),
        ({'sampler': 'ddim', 'nfe': 20}, 'You may rank them'),
        ({'num_samples': 50000}, 'Do not rank them'),
        ({'reference': {'split': 'test', 'n': 50000}}, 'Do not rank them'),
    ],
)
def test_what_was_measured_may_differ_how_may_not(change, words):
    left, right = ({'metric': 'fd', 'kind': 'distance', 'protocol': p} for p in (VALUES, {**VALUES, **change}))
    assert words in protocol.compare(left, right)[0]


def test_an_exact_number_is_not_ranked_with_a_bound():
    left, right = ({'metric': 'bits_per_dim', 'kind': kind, 'protocol': VALUES} for kind in ('exact', 'lower_bound'))
    verdict, different = protocol.compare(left, right)
    assert 'Do not rank them' in verdict
    assert different == {'kind': ('exact', 'lower_bound')}


@pytest.fixture
def run(tmp_path):
    """A folder with two rows of results."""
    results = Results(tmp_path / 'results.jsonl')
    for metric, value in (('fd', 1.0), ('kd', 2.0), ('fd', 3.0)):
        results.add(metric=metric, value=value, protocol={**VALUES, 'value': value})
    return tmp_path


def test_a_row_is_found_by_line_or_by_metric(run):
    assert protocol.read_row(f'{run}:1')['value'] == 1.0
    assert protocol.read_row(f'{run}/results.jsonl:kd')['value'] == 2.0
    assert protocol.read_row(f'{run}:fd')['value'] == 3.0  # the last


@pytest.mark.parametrize(
    ('address', 'words'),
    [
        ('{run}', 'is not a row'),
        ('{run}:9', 'no row 9; its rows are 1 to 3'),
        ('{run}:fid', "no row with the metric 'fid'; its metrics are fd, kd"),
        ('{run}/nowhere:1', 'no file'),
    ],
)
def test_a_row_that_is_not_there_is_said(run, address, words):
    with pytest.raises(UserError, match=words):
        protocol.read_row(address.format(run=run))


def test_rows_hold_no_nan():
    row = complete({'metric': 'fd', 'value': float('nan'), 'details': {'a': [float('inf'), 1.0]}, 'protocol': VALUES})
    assert row['value'] is None and row['details'] == {'a': [None, 1.0]}
    assert row['protocol_hash'] == Protocol(VALUES).hash
    json.dumps(row, allow_nan=False)


def test_a_grid_of_another_average_or_seed_has_a_file_of_its_own():
    options = {'average': 'ema', 'seed': 0}
    drawn = {'sampler': 'heun', 'steps': 10, 'guidance': 0.0, 'average': 'ema', 'seed': 0}
    assert protocol.picture(drawn, options) == 'heun_10.png'
    other = {**drawn, 'guidance': 2.0, 'average': 'power:0.05', 'seed': 3}
    assert protocol.picture(other, options) == 'heun_10_g2.0_average-power-0.05_seed-3.png'
