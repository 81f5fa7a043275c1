"""Sweeps are the choices they say, in order."""

import pytest

from genbench.errors import UserError
from genbench.studies.sweep import chain, fixed, grid, label, product, when, words, zipped


def test_a_grid_holds_every_combination_once():
    found = list(grid({'a.x': (1, 2, 3), 'a.y': ('u', 'v')}))
    assert found == [{'a.x': x, 'a.y': y} for x in (1, 2, 3) for y in ('u', 'v')]


def test_zipped_values_go_together():
    assert list(zipped({'a': (1, 2), 'b': ('u', 'v')})) == [{'a': 1, 'b': 'u'}, {'a': 2, 'b': 'v'}]


def test_zipped_values_of_different_numbers_are_refused():
    with pytest.raises(UserError, match='a has 2, b has 3'):
        zipped({'a': (1, 2), 'b': (1, 2, 3)})


def test_a_chain_is_one_after_the_other():
    assert list(chain(grid({'a': (1, 2)}), {'b': 3}, fixed({'c': 4}))) == [{'a': 1}, {'a': 2}, {'b': 3}, {'c': 4}]


def test_a_product_has_as_many_choices_as_its_parts_multiplied():
    found = list(product(grid({'a': (1, 2)}), chain({'b': 1}, {'b': 2, 'c': 3}), fixed({'d': 4})))
    assert len(found) == 4
    assert found[1] == {'a': 1, 'b': 2, 'c': 3, 'd': 4}


def test_a_condition_adds_choices_only_where_it_holds():
    found = list(product(grid({'a': ('u', 'v')}), when('a', 'v', grid({'b': (1, 2)}))))
    assert found == [{'a': 'u'}, {'a': 'v', 'b': 1}, {'a': 'v', 'b': 2}]


def test_a_condition_may_stand_in_the_other_branch():
    inner = when('b', 2, fixed({'c': 1}))
    found = list(product(grid({'a': (1, 2), 'b': (1, 2)}), when('a', 1, fixed({'c': 0}), otherwise=inner)))
    assert [choice.get('c') for choice in found] == [0, 0, None, 1]


def test_a_condition_may_have_another_branch_and_may_be_nested():
    inner = product(fixed({'b': 1}), when('b', 1, fixed({'c': 2})))
    found = list(product(grid({'a': (1, 2)}), when('a', 1, inner, otherwise=fixed({'c': 0}))))
    assert found == [{'a': 1, 'b': 1, 'c': 2}, {'a': 2, 'c': 0}]


@pytest.mark.parametrize(
    ('sweep', 'message'),
    [
        (product(when('a', 1, fixed({'b': 1}))), 'needs an earlier part'),
        (product(grid({'a': (1,)}), grid({'a': (2,)})), 'set a; only one part may set a key'),
    ],
)
def test_a_product_that_makes_no_sense_says_why(sweep, message):
    with pytest.raises(UserError, match=message):
        list(sweep)


@pytest.mark.parametrize('values', ['cosine', (), 3])
def test_a_key_without_a_list_of_values_is_refused(values):
    with pytest.raises(UserError, match='list of values for family.schedule; got'):
        grid({'family.schedule': values})


def test_names_and_overrides_of_a_choice():
    choice = {'family.schedule': 'edm', 'optimizer.learning_rate': 2e-3, 'network.multipliers': (1, 2)}
    assert label(choice) == 'edm-learning_rate=0.002-multipliers=1_2'
    assert words(choice) == ('family.schedule=edm', 'optimizer.learning_rate=0.002', 'network.multipliers=(1, 2)')
