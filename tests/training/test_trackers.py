"""Trackers get what metrics.jsonl gets, go on when a run is resumed, and never stop one."""

import json
import shutil

import pytest

from genbench import config as configs
from genbench.errors import UserError
from genbench.evaluation import harness
from genbench.training import trackers
from genbench.training.loop import train
from genbench.training.metrics import read_rows


class Fake:
    """A tracker that keeps what it is sent; it fails from step `broken` on."""

    broken = 99
    runs: dict[str, list] = {}

    def __init__(self, config, folder, name, known):
        self.id = known or f'run{len(Fake.runs)}'
        self.rows = Fake.runs.setdefault(self.id, [])
        self.rows.append(('open', name))

    def write(self, step, scalars):
        if step >= self.broken:
            raise ConnectionError('the network\nis down')
        self.rows.append((step, dict(scalars)))

    def picture(self, step, tag, path):
        self.rows.append(('picture', step, tag, path.name))

    def results(self, step, scalars):
        self.rows.append(('results', step, scalars))

    def close(self, complete):
        self.rows.append(('close', complete))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(Fake, 'runs', {})
    monkeypatch.setitem(trackers.KINDS, 'wandb', Fake)
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: object())
    return Fake


def test_a_tracker_gets_the_rows_of_the_file(fake, tiny, tmp_path):
    train(tiny('gaussian', 'trackers.names=wandb', 'trackers.run=first'), tmp_path / 'run', quiet=True)
    (opened, *rows, picture, closed) = fake.runs['run0']
    assert (opened, closed) == (('open', 'first'), ('close', True))
    assert picture == ('picture', 4, 'samples', 'step_0000004.png')
    written = read_rows(tmp_path / 'run' / 'metrics.jsonl')
    assert rows == [(row.pop('step'), row) for row in written]


def test_a_resumed_run_goes_on_in_the_same_run_without_sending_a_step_twice(fake, tiny, tmp_path):
    """Its newest checkpoint is gone, so it repeats steps that were sent."""
    names = ('gaussian', 'trackers.names=wandb', 'checkpoint.every=2')
    train(tiny(*names), tmp_path, quiet=True)
    shutil.rmtree(tmp_path / 'checkpoints' / '4')
    train(tiny(*names, 'train.num_steps=6'), tmp_path, quiet=True)
    assert list(fake.runs) == ['run0']
    assert [step for step, *_ in fake.runs['run0'] if isinstance(step, int)] == [1, 2, 3, 4, 5, 6]
    assert [row[1] for row in fake.runs['run0'] if row[0] == 'picture'] == [4, 6]


def test_an_evaluation_goes_to_the_same_run(fake, tiny, tmp_path):
    train(tiny('gaussian', 'trackers.names=wandb'), tmp_path / 'run', quiet=True)
    before = len(fake.runs['run0'])
    rows = harness.evaluate(tmp_path / 'run', ['evaluation.features.name=pixels', 'evaluation.metrics=fd,likelihood'])
    (opened, (kind, step, scalars), picture, closed) = fake.runs['run0'][before:]
    assert (opened[0], kind, step, closed) == ('open', 'results', 4, ('close', True))
    values = {row['metric']: row['value'] for row in rows}
    fd, bits = 'results/fd/direct_1_average-current', 'results/bits_per_dim/density_1'
    assert scalars == {fd: values['fd'], bits: values['bits_per_dim']}
    assert picture[1:] == (4, f'samples/{fd[11:]}', f'{fd[11:]}.png') and list(fake.runs) == ['run0']


def test_runs_are_grouped_by_their_study(tiny, tmp_path):
    config, folder = tiny('gaussian'), tmp_path / 'widths' / 'trials' / 'wide-0'
    assert trackers.group(config, folder) == ''
    folder.mkdir(parents=True)
    (tmp_path / 'widths' / 'study.json').write_text('{}')
    assert trackers.group(config, folder) == 'widths'
    assert trackers.group(tiny('gaussian', 'trackers.group=mine'), folder) == 'mine'


def test_a_run_may_get_a_tracker_later_which_then_gets_all_rows(fake, tiny, tmp_path):
    train(tiny('gaussian'), tmp_path, quiet=True)
    assert fake.runs == {} and not (tmp_path / trackers.FILE).exists()
    train(tiny('gaussian', 'trackers.names=wandb', 'train.num_steps=6'), tmp_path, quiet=True)
    assert [step for step, *_ in fake.runs['run0'] if isinstance(step, int)] == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_fails_is_left_out_with_one_warning(fake, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, 'broken', 2)
    with pytest.warns(UserWarning) as warned:
        outcome = train(tiny('gaussian', 'trackers.names=wandb'), tmp_path, quiet=True)
    assert outcome.complete and len(read_rows(tmp_path / 'metrics.jsonl')) == 4
    (message,) = [str(one.message) for one in warned if 'wandb' in str(one.message)]
    assert 'wandb failed and will be ignored (ConnectionError: the network is down)' in message


def test_one_that_cannot_start_stops_a_new_run_but_not_one_that_goes_on(fake, tiny, tmp_path, monkeypatch):
    names = ('gaussian', 'trackers.names=wandb')
    monkeypatch.setattr(fake, '__init__', lambda *_: 1 / 0)
    with pytest.raises(UserError, match='wandb cannot start .trackers.names.: ZeroDivisionError'):
        train(tiny(*names), tmp_path / 'new', quiet=True)
    train(tiny('gaussian'), tmp_path / 'old', quiet=True)
    with pytest.warns(UserWarning, match='wandb failed'):
        assert train(tiny(*names, 'train.num_steps=6'), tmp_path / 'old', quiet=True).complete


@pytest.mark.parametrize(
    ('name', 'words'), [('wandbb', 'Did you mean wandb?'), ('mlflow', "pip install -e '.\\[mlflow\\]'")]
)
def test_what_is_not_there_is_said_before_anything_starts(tiny, tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=words):
        train(tiny('gaussian', f'trackers.names={name}'), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_trackers_make_no_other_experiment(tiny):
    plain, tracked = tiny('gaussian'), tiny('gaussian', 'trackers.names=wandb', 'trackers.project=p')
    assert configs.identity(plain) == configs.identity(tracked)
    assert configs.config_hash(plain) == configs.config_hash(tracked)


def start_twice(tiny, folder, name):
    """A run of four steps that goes on to six, with a tracker; the id it had each time."""
    ids = []
    for steps in (4, 6):
        train(tiny('gaussian', f'trackers.names={name}', f'train.num_steps={steps}'), folder, quiet=True)
        ids.append(json.loads((folder / trackers.FILE).read_text())[name])
    return ids


def test_weights_and_biases_offline(tiny, tmp_path, monkeypatch):
    pytest.importorskip('wandb', reason='the extra "wandb" is not installed')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    first, second = start_twice(tiny, tmp_path / 'run', 'wandb')
    assert first == second
    files = sorted((tmp_path / 'run' / 'wandb').glob(f'offline-run-*/run-{first}.wandb'))
    assert len(files) == 2
    assert all(b'moments/images' in path.read_bytes() for path in files)
    assert list((tmp_path / 'run' / 'wandb').glob('offline-run-*/files/media/images/samples_4_*.png'))


def test_mlflow_in_the_folder_of_the_run(tiny, tmp_path, monkeypatch):
    pytest.importorskip('mlflow', reason='the extra "mlflow" is not installed')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    first, second = start_twice(tiny, tmp_path / 'run', 'mlflow')
    assert first == second
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / 'run' / 'mlruns').as_uri())
    run = client.get_run(first)
    assert (run.info.status, run.info.run_name, run.data.params['train.num_steps']) == ('FINISHED', 'run', '4')
    sent = {metric.step: metric.value for metric in client.get_metric_history(first, 'moments/images')}
    rows = read_rows(tmp_path / 'run' / 'metrics.jsonl')
    assert sent == {row['step']: row['moments/images'] for row in rows} and len(sent) == 6
    assert [file.path for file in client.list_artifacts(first, 'samples')] == [
        f'samples/step_000000{step}.png' for step in (4, 6)
    ]
