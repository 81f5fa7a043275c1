"""A study file becomes trials, or one line that says why not."""

import textwrap

import pytest

from genbench.errors import UserError
from genbench.studies import study
from genbench.studies.study import Trial, variants
from genbench.studies.sweep import grid

HEAD = """
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial, variants
from genbench.studies.sweep import grid, product, when


def get_study():
    return {}
"""
CONFIG = 'configs/digits/diffusion.py'


@pytest.fixture
def loaded(tmp_path):
    """`loaded('Study(…)')` → the study of a file that returns this expression."""

    def load(expression):
        path = tmp_path / 'study.py'
        path.write_text(HEAD.format(textwrap.dedent(expression)))
        return study.load(str(path))

    return load


def test_variants_are_named_by_what_was_chosen():
    made = variants(CONFIG, grid({'family.schedule': ('linear', 'cosine')}), name='d', overrides={'train.seed': 3})
    assert [trial.name for trial in made] == ['d-linear', 'd-cosine']
    assert made[0].overrides == ('train.seed=3', 'family.schedule=linear')


def test_every_seed_has_its_own_teacher(loaded):
    found = loaded(f"""Study('t', 'c', seeds=(0, 7), trials=(
        Trial('teacher', {CONFIG!r}),
        Trial('student', 'configs/digits/consistency.py', {{'family.teacher': '{{trials}}/teacher'}}, ['teacher'])))""")
    assert [trial.name for trial in found.trials] == ['teacher-s0', 'student-s0', 'teacher-s7', 'student-s7']
    assert [trial.variant for trial in found.trials] == ['teacher', 'student'] * 2
    student = found.trials[3]
    assert student.after == ('teacher-s7',)
    assert student.overrides == ('family.teacher={trials}/teacher-s7', 'train.seed=7')


def test_one_seed_leaves_names_as_they_are(loaded):
    (trial,) = loaded(f"Study('t', 'c', (Trial('a', {CONFIG!r}),), seeds=(5,))").trials
    assert (trial.name, trial.overrides) == ('a', ('train.seed=5',))


def test_what_a_study_says_for_all_gives_way_to_what_a_trial_says(loaded, tmp_path):
    found = loaded(f"""Study('t', 'c', evaluation={{'evaluation.sets': 2}}, grid=('nfe=5',), trials=(
        Trial('a', {CONFIG!r}), Trial('b', {CONFIG!r}, ('evaluation.sets=4',), grid=('nfe=9',))))""")
    configs = [study.resolve(trial, tmp_path) for trial in found.trials]
    assert [config.evaluation.sets for config in configs] == [2, 4]
    assert [trial.grid for trial in found.trials] == [('nfe=5',), ('nfe=9',)]


A = f'Trial("a", {CONFIG!r})'


@pytest.mark.parametrize(
    ('expression', 'words'),
    [
        ("Study('t', 'c', ())", 'of at least one'),
        (f"Study('t', 'c', ({A}, {A}))", "two trials with the name 'a'"),
        (f"Study('t', 'c', ({A}, Trial('b', 'x', (), ('c',)), Trial('c', 'x')))", "'b' waits for 'c', which is not"),
        (f"Study('t', 'c', ({A}, Trial('b', 'x', ('family.teacher={{trials}}/a',))))", 'does not wait for it'),
        ("Study('t', 'c', (Trial('a/b', 'x'),))", 'is not a valid trial name'),
        ("Study('t', 'c', (Trial('real', 'x'),))", 'is not a valid trial name'),
        ("Study('t', 'c', (Trial('a', 'x', 'train.seed=3'),))", 'overrides of trial .* should be a tuple of strings'),
        (f"Study('t', 'c', ({A},), baseline='b')", "its baseline 'b' is not a trial. Choose from: a"),
        (f"Study('t', 'c', ({A},), figures=('nfes',))", "figure 'nfes'. Did you mean nfe"),
        (f"Study('t', 'c', ({A},), seeds=(1, 1))", 'contain one twice'),
        (f"Study('t', 'c', ({A},), seeds=3)", 'integers of at least 0'),
        (f"Study('t', 'c', ({A},), seeds=(0.5,))", 'integers of at least 0'),
        (f"Study('t', 'c', ({A},), budget=1000)", 'should be a Budget, not 1000'),
        (f"Study('t', 'c', ({A},), budget=Budget(steps=0))", 'steps is 0; it should be a number above 0'),
        (f"Study('t', 'c', ({A},), budget=Budget(steps=5, images=5))", 'has steps and images'),
        (f"Study('t', 'c', ({A},), budget=Budget())", 'needs one of steps'),
        (f"Study('t', 'c', ({A},), evaluation={{'train.seed': 3}})", 'sets train.seed, .* not a key of evaluation'),
        ("Study('t', 'c', variants('x', grid({'family.schedule': 'cosine'})))", 'needs a list of values'),
        ('[]', 'should return a Study, not list'),
        ('1 / 0', 'ZeroDivisionError'),
    ],
)
def test_a_study_that_cannot_be_run_says_why_in_one_line(loaded, expression, words):
    with pytest.raises(UserError, match=words) as error:
        loaded(expression)
    assert '\n' not in str(error.value)


def test_a_study_that_is_not_there_is_looked_for_nearby(tmp_path):
    (tmp_path / 'families.py').touch()
    with pytest.raises(UserError, match=r'Did you mean .*families\.py'):
        study.load(str(tmp_path / 'famillies.py'))


@pytest.mark.parametrize(
    ('trial', 'words'),
    [
        (Trial('a', 'configs/digits/difusion.py'), "Trial 'a': .*Did you mean configs/digits/diffusion.py"),
        (Trial('a', CONFIG, ('train.num_step=3',)), "Trial 'a': .*Did you mean train.num_steps"),
        (Trial('a', CONFIG, ('train.num_steps=many',)), "Trial 'a': train.num_steps expects an integer"),
    ],
)
def test_a_trial_that_does_not_resolve_is_named(trial, words, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(UserError, match=words):
        study.resolve(trial, tmp_path)
