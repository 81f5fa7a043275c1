"""A plan keeps what is finished, goes on with what is not, and loses nothing."""

import json

import pytest

from genbench import config as configs
from genbench.errors import UserError
from genbench.studies import costs, identity, plan, preview, runner, state
from genbench.studies.budget import Budget
from genbench.studies.study import Study, Trial
from genbench.training import runs


@pytest.fixture
def make(tiny, tmp_path, config_file):
    """`make(name=(override, …), …)` → the plan of trials of one config in one folder."""
    path = str(config_file(tiny('gaussian')))

    def build(rerun_changed=False, **trials):
        made = tuple(Trial(name, path, tuple(overrides), variant=name) for name, overrides in trials.items())
        return plan.make(Study('t', 'c', made), tmp_path / 'out', rerun_changed=rerun_changed)

    return build


def finish(made, *names, how='done'):
    """Leave the folders of trials as their processes would."""
    plan.begin(made, [one for one in made.trials if one.name in names])
    for one in made.trials:
        if one.name in names:
            one.folder.config.write_text(configs.to_json(one.config))
            one.folder.manifest.write_text('{}')
            one.folder.results.write_text('{"metric": "fd", "seed": 0}\n')
            state.update(one.folder.path, state=how)


def states(made):
    return {one.name: one.state for one in made.trials}


def test_what_is_finished_is_kept_and_the_rest_is_chosen(make):
    trials = {'a': (), 'b': ('train.seed=1',), 'c': ('train.seed=2',), 'd': ('train.seed=3',)}
    finish(make(**trials), 'a')
    finish(make(**trials), 'b', how='failed')
    finish(make(**trials), 'c', how='preempted')
    made = make(**trials)
    assert states(made) == {'a': 'done', 'b': 'failed', 'c': 'unfinished', 'd': 'missing'}
    assert [one.name for one in made.select()] == ['b', 'c', 'd']
    assert [one.name for one in made.select(retry_failed=True)] == ['b']
    assert [one.name for one in made.select(limit=2)] == ['b', 'c']
    assert [one.name for one in made.select(only='[cd],a')] == ['c', 'd']
    assert plan.job(made.by_name['a']).done and not plan.job(made.by_name['b']).done


def test_a_pattern_that_fits_no_trial_is_refused(make):
    with pytest.raises(UserError, match='--only first matches no trial of the study. Choose from: a'):
        make(a=()).select(only='first')


def test_a_trial_of_another_config_is_set_aside_whole(make):
    finish(make(a=()), 'a')
    old = identity.read(make(a=()).trials[0].folder.path)['trial_id']
    made = make(a=('train.seed=9',))
    assert states(made) == {'a': 'changed'}
    assert plan.remarks(made, made.select()) == ['1 trial (a) changed; the old results are kept as NAME.old-ID.']
    plan.begin(made, made.select())
    folder = made.trials[0].folder.path
    assert (folder.with_name(f'a.old-{old}') / 'results.jsonl').read_text() == '{"metric": "fd", "seed": 0}\n'
    assert state.read(folder)['state'] == 'queued' and not (folder / 'results.jsonl').exists()
    assert json.loads((folder / 'wanted.json').read_text())['train']['seed'] == 9


def test_another_evaluation_is_made_up_for_without_training_again(make):
    finish(make(a=()), 'a')
    made = make(a=('evaluation.sets=2',))
    assert states(made) == {'a': 'to evaluate'}
    plan.begin(made, made.select())
    assert made.trials[0].folder.manifest.is_file() and not plan.job(made.trials[0]).done


def test_finished_trials_are_kept_when_the_code_changes_and_run_anew_when_asked(make, monkeypatch):
    finish(make(a=()), 'a')
    monkeypatch.setattr(identity, 'code', lambda *_: 'other')
    made = make(a=())
    assert states(made) == {'a': 'done'} and made.select() == [] and plan.job(made.trials[0]).done
    (line,) = plan.remarks(made, [])
    assert 'other code' in line and '--rerun-changed' in line
    again = make(rerun_changed=True, a=())
    assert states(again) == {'a': 'changed'}
    plan.begin(again, again.select())
    assert identity.read(again.trials[0].folder.path)['code'] == 'other'
    assert len(list(again.folder.glob('trials/a.old-*'))) == 1


def test_a_plan_says_where_test_images_are_too_few_for_a_bound(make):
    few = 'evaluation.num_samples=200'
    lines = plan.remarks(made := make(a=(), b=(few,), c=(few, 'train.seed=1')), [])
    (line,) = lines
    assert "180 of the 360 images of 'test'" in line and 'Set evaluation.num_samples=180' in line
    assert list(preview.lines(made, []))[-1] == line
    many = 'evaluation.num_samples=361'
    found = plan.remarks(make(a=(many, 'evaluation.metrics=fd,fd_train')), [])
    assert [line.partition(' on ')[0] for line in found] == ['fd', 'fd_train']
    assert 'Set evaluation.num_samples=360' in found[1]


def test_rows_of_a_changed_trial_that_was_not_chosen_are_not_passed_off_as_its_own(make):
    finish(make(a=()), 'a')
    made = make(a=('train.seed=9',))
    plan.begin(made, [])
    runner.collect(made)
    assert (made.folder / 'results.jsonl').read_text() == ''


def test_two_names_of_one_trial_are_found(make):
    with pytest.raises(UserError, match="Trials 'a' and 'b' are the same trial"):
        make(a=('train.seed=1',), b=('train.seed=1',))


def test_settings_are_the_keys_in_which_variants_differ(make):
    made = make(a=('train.seed=1', 'evaluation.sets=2'), b=('train.seed=2', 'train.num_steps=7'))
    assert made.settings() == {
        'a': {'train.num_steps': 4, 'evaluation.sets': 2},
        'b': {'train.num_steps': 7, 'evaluation.sets': 1},
    }


def test_words_of_a_grid_are_checked_before_anything_starts(tiny, tmp_path, config_file):
    path = str(config_file(tiny('gaussian')))
    for words, message in ((('nfes=3',), 'no axis .nfes.'), (('sampler=heun',), 'cannot use the sampler'),
                           (('steps=few',), 'is not an integer')):  # fmt: skip
        with pytest.raises(UserError, match=f"Trial 'a': .*{message}"):
            plan.make(Study('t', 'c', (Trial('a', path, grid=words),)), tmp_path / 'out')


def test_a_metric_that_a_model_has_nothing_for_is_refused(make):
    with pytest.raises(UserError, match=r"Trial 'b': This gaussian model has no decoder .*remove ais from") as caught:
        make(a=(), b=('evaluation.metrics=fd,ais',))
    assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match="Trial 'a': This gaussian run has no path from noise to images"):
        make(a=('evaluation.metrics=restored_psnr',))


def test_a_chain_of_trials_plans_with_a_metric_that_looks_at_their_models(tiny, tmp_path, config_file):
    """The second round of reflow builds on a trial that builds on a trial, and none of them is there yet."""
    path = str(config_file(tiny('flow_matching', 'evaluation.metrics=w2', 'evaluation.samplers=euler:2')))
    pairs = 'family.coupling=pairs:steps=2'
    made = plan.make(
        Study('t', 'c', (
            Trial('flow', path),
            Trial('first', path, (pairs, 'family.teacher={trials}/flow'), after=('flow',)),
            Trial('second', path, (pairs, 'family.teacher={trials}/first'), after=('first',)),
        )),
        tmp_path / 'out',
    )  # fmt: skip
    assert [one.name for one in made.trials] == ['flow', 'first', 'second']


@pytest.fixture
def matched(tiny, tmp_path, config_file, monkeypatch):
    """`matched(budget, cost)` → the plan of a teacher with two seeds and its student; each step costs `cost`."""
    teacher = str(config_file(tiny('diffusion'), 'teacher.py'))
    lent = {'family.teacher': str(tmp_path / 'out' / 'trials' / 'teacher')}
    student = str(config_file(tiny('consistency', *(f'{key}={value}' for key, value in lent.items())), 'student.py'))
    trials = (
        Trial('teacher', teacher),
        Trial('again', teacher, ('train.seed=1',)),
        Trial('student', student, after=('teacher',)),
        Trial('aside', teacher, ('train.seed=2',), matched=False),
    )

    def build(budget, cost):
        estimate = lambda requests: [costs.Cost(10, [(None, [cost])], step_seconds=[cost]) for _ in requests]  # noqa: E731
        monkeypatch.setattr(costs, 'estimate', estimate)
        made = plan.make(Study('t', 'c', trials, budget=budget), tmp_path / 'out')
        plan.begin(made, [])
        return made

    return build


def test_a_budget_sets_the_steps_and_says_what_the_teacher_had_cost(matched):
    made = matched(Budget(training_flops=100.0), 8.0)
    assert [one.config.train.num_steps for one in made.trials] == [12, 12, 12, 4]
    student, aside = made.trials[2].matched, made.trials[3].matched
    assert (student['target'], student['reached'], student['builds_on']) == (100.0, 96.0, {'teacher': 96.0})
    assert (aside['by'], aside['training_flops']) == ('not matched', 32.0)


def test_matched_steps_stay_when_the_study_is_run_again(matched):
    before = [one.identity for one in matched(Budget(seconds=100.0), 8.0).trials]
    assert [one.identity for one in matched(Budget(seconds=100.0), 5.0).trials] == before
    assert matched(Budget(seconds=50.0), 5.0).trials[0].config.train.num_steps == 10


def test_the_preview_shows_states_steps_and_costs_and_writes_nothing(matched, tmp_path):
    made = matched(Budget(training_flops=100.0), 8.0)
    kept = sorted(tmp_path.rglob('*'))
    shown = '\n'.join(preview.lines(made, made.select()))
    assert '4 trials' in shown and '12 steps  96 FLOPs' in shown
    assert 'training_flops 96 of 100, after teacher 96 FLOPs' in shown and 'not matched' in shown
    assert sorted(tmp_path.rglob('*')) == kept


def test_the_folder_of_another_study_or_of_a_run_is_refused(tmp_path):
    (tmp_path / 'study.json').write_text('{"study": "experiments/other.py"}')
    with pytest.raises(UserError, match='has the study experiments/other.py, not mine.py'):
        runner.check_folder(tmp_path, 'mine.py')
    runner.check_folder(tmp_path, 'elsewhere/other.py')
    (tmp_path / 'manifest.json').touch()
    with pytest.raises(UserError, match='is a run, not a study'):
        runner.check_folder(tmp_path, 'elsewhere/other.py')


def test_rows_of_the_study_say_which_trial_they_are_of(make):
    made = make(a=('train.seed=3',))
    finish(made, 'a')
    with (made.trials[0].folder.results).open('a') as file:
        file.write('{"metric": "f')  # half a line
    runner.collect(make(a=('train.seed=3',)))
    (row,) = [json.loads(line) for line in (made.folder / 'results.jsonl').read_text().splitlines()]
    expected = {'study': 'out', 'trial': 'a', 'variant': 'a', 'seed': 3, 'settings': {}, 'metric': 'fd', 'protocol': {}}
    assert row == {**expected, 'trial_id': made.trials[0].identity.trial_id}


def test_a_folder_in_which_a_process_trains_is_not_set_aside(make):
    finish(make(a=()), 'a', how='running')
    made = make(a=('train.seed=9',))
    with runs.lock(made.trials[0].folder), pytest.raises(UserError, match='Another process is training'):
        plan.begin(made, made.select())
    assert made.trials[0].folder.manifest.is_file()


def test_what_a_cluster_is_at_is_left_to_it_also_when_the_code_changes(make, monkeypatch):
    made = make(a=())
    plan.begin(made, made.trials)
    state.update(made.trials[0].folder.path, job='slurm:7_0')
    monkeypatch.setattr(identity, 'code', lambda *_: 'other')
    again = make(a=('train.log_every=9',))
    plan.begin(again, again.select())
    assert state.read(again.trials[0].folder.path)['job'] == 'slurm:7_0'
    assert again.trials[0].identity == made.trials[0].identity
    assert json.loads(plan.job(again.trials[0]).wanted.read_text())['train']['log_every'] == 9


@pytest.mark.parametrize('stands', ['RUNNING', 'PENDING', 'COMPLETED', 'CANCELLED'])
def test_a_trial_that_a_job_is_at_is_not_begun_under_another_config(make, monkeypatch, stands):
    made = make(a=())
    plan.begin(made, made.trials)
    state.update(made.trials[0].folder.path, state='running', job='slurm:7_0')
    monkeypatch.setattr(plan.squeue, 'read', lambda: {'7_0': plan.squeue.Entry(stands, 'None')})
    again = make(a=('train.seed=5',))
    if stands in ('RUNNING', 'PENDING'):
        with pytest.raises(UserError, match='scancel 7_0'):
            plan.begin(again, again.select())
        assert state.read(again.trials[0].folder.path)['job'] == 'slurm:7_0'
    else:  # the cluster still tells of it, and it has ended
        plan.begin(again, again.select())
        assert state.read(again.trials[0].folder.path)['job'] == ''


def test_a_finished_trial_of_an_older_format_is_kept(make):
    made = make(a=())
    folder = made.trials[0].folder.path
    finish(made, 'a')
    (folder / identity.FILE).unlink()
    (folder / 'status.json').write_text('{"state": "done", "reason": ""}')
    again = make(a=())
    assert states(again) == {'a': 'done'} and again.select() == []
    plan.begin(again, [])
    assert plan.job(again.trials[0]).done and make(a=()).trials[0].state == 'done'
