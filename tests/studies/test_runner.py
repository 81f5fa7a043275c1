"""A study runs what is missing, collects every row, and outlives trials that fail."""

import json

import pytest

from genbench import config as configs
from genbench.errors import UserError
from genbench.evaluation.results import BOUNDS
from genbench.studies import runner, study
from genbench.training.metrics import read_rows

STUDY = """
from genbench.studies.study import Study, Trial


def get_study():
    return Study(title='Two <families>', claim='It runs.', trials={trials})
"""


def write_study(folder, tiny, trials):
    """A study file of trials given as name → (config, what a Trial takes beside)."""
    written = []
    for name, (config, more) in trials.items():
        path = folder / f'{name}.py'
        path.write_text(f'def get_config():\n    return {configs.plain(config)!r}\n')
        options = ''.join(f', {key}={value!r}' for key, value in more.items())
        written.append(f'Trial({name!r}, {str(path)!r}{options})')
    file = folder / 'study.py'
    file.write_text(STUDY.format(trials=f'({", ".join(written)},)'))
    return str(file)


def tracks(folder):
    """Everything that a trial leaves, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in (folder / 'trials').rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def done(tiny, tmp_path_factory):
    """(study file, folder) of a study of two trials that has been run."""
    folder = tmp_path_factory.mktemp('study')
    vae = tiny('vae', 'train.num_steps=2')
    trials = {
        'floor': (tiny('gaussian'), {'grid': ('seed=3,4',)}),
        'vae': (vae, {'overrides': ('train.seed=5',), 'after': ('floor',)}),
    }
    file = write_study(folder, tiny, trials)
    assert runner.run(file, str(folder / 'out'), jobs=1)
    return file, folder / 'out'


@pytest.mark.slow
def test_rows_of_all_trials_and_of_real_images_are_collected(done):
    rows = read_rows(done[1] / 'results.jsonl')
    found = {trial: {row['metric'] for row in rows if row['trial'] == trial} for trial in (*BOUNDS, 'floor', 'vae')}
    memorisation = {'copied', 'authenticity', 'train_test_gap'}
    assert all(found[bound] == {'fd', 'fd_train', 'kd', 'precision', 'recall', *memorisation} for bound in BOUNDS)
    assert {'fd', 'bits_per_dim', 'training_seconds'} <= found['floor'] & found['vae']
    assert len({row['features'] for row in rows if row['metric'] == 'fd'}) == 1


@pytest.mark.slow
def test_rows_say_which_trial_of_which_study_they_are_of(done):
    rows = [row for row in read_rows(done[1] / 'results.jsonl') if row['trial'] == 'vae']
    (found,) = {(row['study'], row['variant'], row['seed'], row['trial_id']) for row in rows}
    described = json.loads((done[1] / 'trials' / 'vae' / 'trial.json').read_text())
    assert found == ('out', 'vae', 5, described['trial_id'])
    assert rows[0]['settings']['train.num_steps'] == 2
    real = [row for row in read_rows(done[1] / 'results.jsonl') if row['trial'] in BOUNDS]
    assert {(row['variant'], row['seed']) for row in real} == {(bound, None) for bound in BOUNDS}


@pytest.mark.slow
def test_every_cell_of_the_grid_is_evaluated(done):
    rows = [row for row in read_rows(done[1] / 'results.jsonl') if row['trial'] == 'floor' and row['metric'] == 'fd']
    assert [row['protocol']['seed'] for row in rows] == [3, 4]


@pytest.mark.slow
def test_every_trial_says_that_it_is_done(done):
    for name in ('floor', 'vae'):
        assert json.loads((done[1] / 'trials' / name / 'status.json').read_text())['state'] == 'done'
    seed = json.loads((done[1] / 'trials' / 'vae' / 'config.json').read_text())['train']['seed']
    assert seed == 5


@pytest.mark.slow
def test_the_page_shows_all_trials(done):
    page = (done[1] / 'report.html').read_text()
    assert 'Two &lt;families&gt;' in page
    assert all(name in page for name in ('floor', 'vae', *BOUNDS))


@pytest.mark.slow
def test_a_second_run_does_nothing(done):
    file, folder = done
    before, results = tracks(folder), (folder / 'results.jsonl').read_text()
    assert runner.run(file, str(folder), jobs=1)
    assert tracks(folder) == before
    assert (folder / 'results.jsonl').read_text() == results


@pytest.fixture(scope='module')
def failed(tiny, tmp_path_factory):
    """(folder, the error) of a study whose first trial cannot be trained."""
    folder = tmp_path_factory.mktemp('failing')
    bad = tiny('vae', 'family.decoder=poisson')
    file = write_study(
        folder,
        tiny,
        {
            'bad': (bad, {}),
            'waiting': (tiny('gaussian'), {'after': ('bad',)}),
            'good': (tiny('gaussian', 'evaluation.metrics=fd'), {}),
        },
    )
    with pytest.raises(UserError) as error:
        runner.run(file, str(folder / 'out'), jobs=1)
    return folder / 'out', str(error.value)


def status(folder, name):
    return json.loads((folder / 'trials' / name / 'status.json').read_text())


def test_a_trial_that_fails_does_not_stop_the_others(failed):
    folder, message = failed
    assert message.startswith('2 of 3 trials failed. bad: ')
    assert "There is no decoder 'poisson'" in message
    assert status(folder, 'bad')['state'] == 'failed'
    waiting = status(folder, 'waiting')
    assert (waiting['state'], waiting['reason']) == ('failed', 'it builds on bad, which failed')
    assert status(folder, 'good')['state'] == 'done'
    assert {row['trial'] for row in read_rows(folder / 'results.jsonl')} == {*BOUNDS, 'good'}


def test_a_trial_that_failed_stands_on_the_page(failed):
    page = (failed[0] / 'report.html').read_text()
    assert '<b>bad failed:</b> There is no decoder &#x27;poisson&#x27;' in page


def test_a_trial_builds_on_another_by_its_folder(tiny, tmp_path):
    options = {'overrides': ('family.teacher={trials}/first',), 'after': ('first',)}
    trials = {'first': (tiny('diffusion'), {}), 'second': (tiny('consistency'), options)}
    loaded = study.load(write_study(tmp_path, tiny, trials))
    resolved = study.resolve(loaded.trials[1], tmp_path / 'trials')
    assert resolved.family.teacher == f'{tmp_path}/trials/first'


@pytest.mark.parametrize(
    ('trials', 'words'),
    [
        ("(Trial('a', 'x.py'), Trial('a', 'y.py'))", "two trials with the name 'a'"),
        ("(Trial('a', 'x.py', after=('b',)), Trial('b', 'y.py'))", "'a' waits for 'b', which is not listed before"),
    ],
)
def test_a_list_of_trials_that_cannot_be_run_says_why(tmp_path, trials, words):
    (tmp_path / 'study.py').write_text(STUDY.format(trials=trials))
    with pytest.raises(UserError, match=words):
        study.load(str(tmp_path / 'study.py'))


def test_a_config_that_does_not_resolve_stops_a_study_before_it_starts(tiny, tmp_path):
    trials = {'one': (tiny('gaussian'), {}), 'two': (tiny('gaussian'), {'overrides': ('train.num_step=3',)})}
    with pytest.raises(UserError, match='Did you mean train.num_steps'):
        runner.run(write_study(tmp_path, tiny, trials), str(tmp_path / 'out'))
    assert not (tmp_path / 'out').exists()
