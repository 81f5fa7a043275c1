"""Cells of an evaluation grid: the product of its axes, budgets that are kept, and words that cannot be."""

import pytest

from genbench import families
from genbench.errors import UserError
from genbench.evaluation import grid


@pytest.fixture
def family(tiny, digits):
    def build(name='diffusion', *overrides):
        config = tiny(name, *overrides)
        return families.get(name)(config, digits[0]), config.evaluation

    return build


def shown(cells):
    return [(cell.average, cell.sampler.name, int(cell.sampler.num_steps)) for cell in cells]


def test_without_words_the_config_says(family):
    cells = grid.cells((), *family('diffusion', 'evaluation.samplers=heun:3,ddim:2'))
    assert shown(cells) == [('ema', 'heun', 3), ('ema', 'ddim', 2)]


def test_cells_are_the_product(family):
    cells = grid.cells(['sampler=heun,ddim', 'steps=2,4', 'average=ema,current', 'seed=0,1'], *family())
    assert len(cells) == len(set(cells)) == 16
    assert {cell.seed for cell in cells} == {0, 1}


@pytest.mark.parametrize(
    ('name', 'budget', 'steps'), [('ddim', 10, 10), ('heun', 10, 5), ('heun', 9, 5), ('heun', 1, 1)]
)
def test_a_budget_buys_the_most_steps_it_can(family, name, budget, steps):
    model, options = family()
    (cell,) = grid.cells([f'sampler={name}', f'nfe={budget}'], model, options)
    assert int(cell.sampler.num_steps) == steps
    assert model.evaluations(cell.sampler) <= budget


def test_a_budget_buys_no_more_steps_than_were_trained(family):
    cells = grid.cells(['sampler=ddim,heun', 'nfe=3,2000'], *family('diffusion', 'family.num_timesteps=4'))
    assert [int(cell.sampler.num_steps) for cell in cells] == [3, 4, 2, 4]


def test_guidance_costs_twice(family):
    model, options = family('diffusion', 'family.conditional=True')
    cells = grid.cells(['sampler=ddim', 'nfe=10', 'guidance=0,2'], model, options)
    assert [(cell.sampler.guidance, int(cell.sampler.num_steps)) for cell in cells] == [(0.0, 10), (2.0, 5)]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['smapler=ddim'], "no axis 'smapler'.*Did you mean sampler"),
        (['sampler='], 'has no values'),
        (['nfe=ten'], 'is not an integer'),
        (['nfe=1e3'], 'is not an integer'),
        (['nfe=4', 'steps=4'], 'either nfe or steps'),
        (['sampler=dimm'], 'ddim'),
        (['sampler=direct'], 'direct'),
        (['nfe=0'], 'nfe is 0; it should be at least 1'),
        (['sampler=heun:guidance=0', 'nfe=1', 'steps=1'], 'nfe or steps'),
        (['guidance=2'], 'guidance, which needs'),
        (['variance=huge', 'sampler=ancestral'], 'variance=huge; it can be small, large'),
        (['sampler=ddim,ancestral', 'variance=large'], "'variance'; ddim takes guidance, temperature, spacing"),
        (['interval=0.2-0.8'], 'has no effect without guidance'),
        (['churn=-1', 'sampler=heun'], 'churn=-1; it can be a number'),
        (['sampler=heun:spacing=0.995/0.5', 'nfe=10'], 'lists the times of 2 steps'),
        (['sampler=ddim:spacing=quadratic', 'spacing=uniform'], 'sets spacing twice'),
        (['sampler=ddim:3', 'steps=4'], 'sets steps twice'),
    ],
)
def test_a_grid_that_cannot_be_says_why(family, words, message):
    with pytest.raises(UserError, match=message):
        grid.cells(words, *family())


def test_options_are_axes_or_parts_of_a_sampler(family):
    axes = grid.cells(['sampler=ancestral', 'steps=3', 'variance=small,large'], *family())
    parts = grid.cells(['sampler=ancestral,ancestral:variance=large', 'steps=3'], *family())
    assert [cell.sampler for cell in axes] == [cell.sampler for cell in parts]
    assert [cell.sampler.options.changed for cell in axes] == [{}, {'variance': 'large'}]


def test_an_interval_lets_a_budget_buy_more_steps(family):
    """At each of the steps that guidance acts on it pays twice."""
    model, options = family('diffusion', 'family.conditional=True')
    words = ['sampler=heun', 'nfe=20', 'guidance=0,2', 'interval=0-inf,0.2-0.8']
    cells = [cell.sampler for cell in grid.cells(words, model, options)]
    assert all(model.evaluations(sampler) <= 20 for sampler in cells)
    none, whole, part = (int(sampler.num_steps) for sampler in cells)  # without guidance the interval is no axis
    assert (none, whole) == (10, 5) and 5 < part < 10


def test_a_comma_within_a_sampler_does_not_end_it(family):
    words = 'ddim:3,ancestral:5:variance=large,spacing=quadratic,heun:2'
    cells = grid.cells([f'sampler={words}'], *family())
    assert cells == grid.cells((), *family('diffusion', f'evaluation.samplers={words}'))
    assert [cell.sampler.options.changed for cell in cells] == [{}, {'variance': 'large', 'spacing': 'quadratic'}, {}]


def test_words_are_checked_before_there_is_a_model():
    diffusion = families.get('diffusion')
    grid.check(['sampler=ancestral:variance=large', 'spacing=quadratic'], diffusion)
    for word in ('sampler=ddim:variance=large', 'spacing=cubic', 'sampler=ddim:0'):
        with pytest.raises(UserError):
            grid.check([word], diffusion)
