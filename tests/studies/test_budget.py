"""Budgets give step counts whose cost is what was asked for, and the same ones ever after."""

import types

import jax
import jax.numpy as jnp
import pytest

from genbench.errors import UserError
from genbench.studies import budget as budgets
from genbench.studies import costs, plan, study
from genbench.studies.budget import Budget
from genbench.studies.costs import Cost, Request
from genbench.training.loop import train

RHYTHM = Cost(10, [(None, [5.0, 1.0, 1.0])], batches=[32])
STAGES = Cost(10, [(4, [2.0]), (None, [3.0])])


def test_operations_follow_the_rhythm_of_updates_and_the_stages():
    assert [RHYTHM.flops(steps) for steps in range(5)] == [0, 5, 6, 7, 12]
    assert [STAGES.flops(steps) for steps in (0, 3, 4, 6)] == [0, 6, 8, 14]


def test_the_beginnings_of_stages_are_paid_when_they_begin():
    cost = Cost(1, STAGES.stages, beginnings=[100.0, 1000.0])
    assert [cost.flops(steps) - STAGES.flops(steps) for steps in (0, 4, 5)] == [0, 100, 1100]


@pytest.mark.parametrize('cost', [RHYTHM, STAGES])
@pytest.mark.parametrize('flops', [5.0, 7.5, 100.0, 12_345.0])
def test_the_steps_of_a_budget_are_the_most_that_fit(cost, flops):
    steps = cost.steps_for(flops)
    assert cost.flops(steps) <= flops < cost.flops(steps + 1)


@pytest.mark.parametrize(
    ('budget', 'steps', 'reached'),
    [
        (Budget(steps=70), 70, 70),
        (Budget(images=1000), 31, 31 * 32),
        (Budget(training_flops=699.5), 299, 699.0),
        (Budget(seconds=3.0), 30, 3.0),
    ],
)
def test_each_kind_of_budget_sets_the_steps_and_says_what_was_reached(tiny, budget, steps, reached):
    cost = Cost(10, RHYTHM.stages, step_seconds=[0.1], batches=[32])
    values, record = budgets.match(budget, 'a', tiny('vae'), cost)
    assert values == {'train.num_steps': steps}
    assert (record['by'], record['steps'], record['reached']) == (budget.by, steps, reached)
    assert budgets.apply(tiny('vae'), values).train.num_steps == steps


@pytest.mark.parametrize(
    ('budget', 'overrides', 'words'),
    [
        (Budget(images=10), (), 'one step costs more than the budget of 10 images'),
        (Budget(training_flops=3.0), (), 'one step costs more than the budget of 3 training_flops'),
        (Budget(steps=50), ('optimizer.warmup_steps=50',), 'buys 50 steps, but optimizer.warmup_steps is 50'),
        (Budget(parameters=20.0, width=''), (), "10 parameters and no key '' to scale, -50.0% off the 20"),
    ],
)
def test_a_budget_that_cannot_be_kept_says_why(tiny, budget, overrides, words):
    with pytest.raises(UserError, match=words):
        budgets.match(budget, 'a', tiny('vae', *overrides), RHYTHM)


@pytest.mark.parametrize('values', [{'steps': -1}, {'seconds': float('inf')}, {'training_flops': 'many'}])
def test_an_impossible_budget_is_refused(values):
    with pytest.raises(UserError, match='should be a number above 0'):
        Budget(**values)


@pytest.fixture(scope='module')
def answers(tiny):
    """(config, what it is estimated to cost) of two families, one with two rhythms; and of one that is scaled."""
    requests = [
        Request(tiny('diffusion')),
        Request(tiny('gan')),
        Request(tiny('diffusion'), width='network.channels', parameters=100_000.0, multiple=8),
        Request(tiny('diffusion'), cores=1),
        Request(tiny('vae', 'family.decoder=poisson')),
    ]
    return list(zip((request.config for request in requests), costs.estimate(requests), strict=True))


@pytest.mark.parametrize('index', [0, 1])
def test_estimates_are_what_training_counts(answers, index, tmp_path):
    config, cost = answers[index]
    summary = train(config, tmp_path / 'run', quiet=True).summary
    assert cost.flops(config.train.num_steps) == pytest.approx(summary['training_flops'], rel=1e-9)
    assert cost.parameters == sum(summary['parameters'].values())


def test_a_width_is_found_whose_parameters_are_nearest(answers):
    config, cost = answers[2]
    assert cost.width % 8 == 0 and cost.parameters == pytest.approx(100_000, rel=0.25)
    values, record = budgets.match(Budget(parameters=100_000.0, tolerance=0.25), 'a', config, cost)
    assert values == {'network.channels': cost.width}
    assert (record['by'], record['reached']) == ('parameters', cost.parameters)


def test_a_step_is_timed_after_compilation(answers):
    assert 0 < answers[3][1].step_seconds[0] < 1
    assert answers[0][1].step_seconds == [0]


def test_a_run_that_cannot_be_built_says_why_and_spoils_no_other(answers):
    assert "There is no decoder 'poisson'" in answers[4][1]


def test_what_was_estimated_is_not_estimated_again(answers, monkeypatch):
    monkeypatch.setattr(costs, '_ask', None)
    assert costs.estimate([Request(answers[0][0])]) == [answers[0][1]]


def test_a_step_whose_operations_are_unknown_is_refused_in_one_line():
    traced = jax.jit(jnp.linalg.svd).trace(jnp.ones((3, 3)))
    with pytest.raises(UserError, match=r'^its FLOPs cannot be counted: it calls svd, which hides its operations\.$'):
        costs._counted(traced)


def test_a_budget_may_include_what_a_trial_builds_on(tiny):
    budget = Budget(training_flops=699.5, with_borrowed=True)
    values, record = budgets.match(budget, 'a', tiny('vae'), RHYTHM, 400.0)
    assert values['train.num_steps'] == RHYTHM.steps_for(299.5)
    assert record['reached'] == 400 + RHYTHM.flops(record['steps']) <= 699.5
    with pytest.raises(UserError, match='budget of 699.5 training_flops, 699 of which the trials that it builds on'):
        budgets.match(budget, 'a', tiny('vae'), RHYTHM, 699.0)
    apart = budgets.match(Budget(training_flops=699.5), 'a', tiny('vae'), RHYTHM, 400.0)
    assert apart[1]['reached'] == RHYTHM.flops(RHYTHM.steps_for(699.5))
    with pytest.raises(UserError, match='with_borrowed, which is for training_flops'):
        Budget(steps=10, with_borrowed=True)


def test_a_students_budget_is_what_its_teacher_leaves(tmp_path, monkeypatch):
    """One step costs 1e9: the teacher's 500 steps leave half of 1e12."""
    (tmp_path / 'mine.py').write_text(STUDENTS)
    monkeypatch.setattr(costs, 'estimate', lambda requests: [Cost(10, [(None, [1e9])]) for _ in requests])
    found = plan.make(study.load(str(tmp_path / 'mine.py')), tmp_path).by_name
    assert [found[name].config.train.num_steps for name in ('teacher', 'alone', 'student')] == [500, 1000, 500]
    assert found['student'].matched['reached'] == found['alone'].matched['reached'] == 1e12


STUDENTS = """
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial


def get_study():
    student = Trial('student', 'digits/consistency', ('family.teacher={trials}/teacher',), after=('teacher',))
    teacher = Trial('teacher', 'digits/diffusion', ('data.flip=True',), matched=False)
    trials = (teacher, Trial('alone', 'digits/diffusion'), student)
    budget = Budget(training_flops=1e12, with_borrowed=True)
    return Study(title='Students', claim='They pay for their teacher.', budget=budget, trials=trials)
"""


def test_a_teacher_outside_the_study_cannot_be_counted(tiny):
    config, matched = tiny('consistency', 'family.teacher=elsewhere/diffusion'), types.SimpleNamespace(matched=True)
    one = types.SimpleNamespace(name='a', trial=matched, config=config, lent={})
    with pytest.raises(UserError, match="'a' borrows a run that is no trial of the study"):
        plan._match(Budget(training_flops=1e9, with_borrowed=True), [one], {}, 1)
