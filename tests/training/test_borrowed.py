"""Runs that build on others: what is lent, that it stays as it is, and where it is found again."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import cli
from genbench import config as configs
from genbench.errors import UserError
from genbench.evaluation import draw, harness
from genbench.families.base import Family, Likelihood, Samples, Update, register
from genbench.training import dry_run, runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.replay import replay
from genbench.training.state import flatten


class Palette(nnx.Module):
    """A parameter, and a variable beside it that each step of training doubles."""

    def __init__(self):
        self.colour, self.count = nnx.Param(jnp.full(2, 0.5)), nnx.BatchStat(jnp.ones(()))


@register('painter')
class Painter(Family):
    """Its parameter goes to 3, and `light` is what others borrow."""

    network = 'palette'

    def networks(self, rngs):
        return {self.network: Palette()}

    @property
    def updates(self):
        return (Update('paint', (self.network,), self.loss),)

    def loss(self, networks, batch, key, step):
        palette = networks[self.network]
        palette.count[...] = 2 * palette.count[...]
        loss = jnp.square(palette.colour[...] - 3).sum()
        return loss, {'loss': loss}

    def light(self, networks):
        return (networks[self.network].colour[...] * networks[self.network].count[...]).sum()

    def sample(self, networks, keys, given, sampler):
        level = self.light(networks).astype(jnp.int32) % self.spec.levels
        return Samples(jnp.full((len(keys), *self.spec.shape), level), 1)

    @property
    def likelihoods(self):
        return (Likelihood('light', 'estimate', self.log_prob, {}),)

    def log_prob(self, networks, images, given, keys):
        return jnp.full(len(images), -self.light(networks))


@register('copyist')
class Copyist(Painter):
    """Two runs lend it their light, to train, to sample and to score."""

    network = 'copy'

    @classmethod
    def defaults(cls):
        return {'family': {'conditional': False, 'conditions': (), 'base': '', 'guide': ''}}

    @classmethod
    def borrows(cls, config):
        return {name: config.family[name] for name in ('base', 'guide') if config.family[name]}

    def lights(self, networks):
        return {name: one.family.light(networks.borrowed(name)) for name, one in self.borrowed.items()}

    def loss(self, networks, batch, key, step):
        lights = self.lights(networks)
        loss = sum(jnp.square(networks['copy'].colour[...] - light).sum() for light in lights.values())
        return loss, {'loss': loss, **lights}

    def light(self, networks):
        return super().light(networks) + sum(self.lights(networks).values())


@pytest.fixture(scope='module')
def painted(tiny, tmp_path_factory):
    """Folder of a run with an average of each sort."""
    folder = tmp_path_factory.mktemp('runs') / 'painter'
    options = ('train.power_widths=(0.1,)', 'train.snapshot_every=1', 'optimizer.learning_rate=0.1')
    train(tiny('painter', *options), folder, quiet=True)
    return folder


@pytest.fixture
def painter(painted, tmp_path):
    """A copy that a test may change."""
    return pathlib.Path(shutil.copytree(painted, tmp_path / 'painter'))


def copying(tiny, base, *options):
    return tiny('copyist', f'family.base={base}', 'checkpoint.every=2', *options)


def light_of(folder, average='ema'):
    """By hand, from the arrays of its newest checkpoint."""
    _, state = runs.open_run(folder).restore()
    params = state['params'] if average == 'current' else state['averages'][average]
    return float((np.asarray(params['palette']['colour']) * np.asarray(state['aux']['palette']['count'])).sum())


def rows_of(folder):
    return read_rows(folder / 'metrics.jsonl')


def test_several_runs_lend_parameters_of_the_average_of_choice_and_all_other_variables(tiny, painted, tmp_path):
    config = copying(tiny, painted, f'family.guide={painted}@current')
    train(config, tmp_path / 'run', quiet=True)
    wanted = {'paint/base': light_of(painted), 'paint/guide': light_of(painted, 'current')}
    assert wanted['paint/base'] != wanted['paint/guide']
    for row in rows_of(tmp_path / 'run'):  # the same at the last step as at the first: nothing lent is moved
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)


def test_the_average_may_be_any_that_evaluation_could_take(tiny, painted, tmp_path):
    lights = {}
    for average in ('current', 'power_0.1', 'power:0.1', 'power:0.2'):
        folder = tmp_path / average
        train(copying(tiny, f'{painted}@{average}', 'train.num_steps=1'), folder, quiet=True)
        lights[average] = rows_of(folder)[-1]['paint/base']
        assert runs.Folder(folder).read_manifest()['borrowed']['base']['average'] == average
    assert lights['power:0.1'] == pytest.approx(lights['power_0.1'], rel=1e-3) == light_of(painted, 'power_0.1')
    assert len({round(value, 3) for value in lights.values()}) == 3
    with pytest.raises(UserError, match="family.base: the average is 'ema_0.5'; this run has current, ema, power_0.1"):
        train(copying(tiny, f'{painted}@ema_0.5'), tmp_path / 'none', quiet=True)
    assert not (tmp_path / 'none').exists()


def test_the_average_is_part_of_what_a_config_is_and_the_folder_is_not(tiny):
    hashes = [configs.config_hash(copying(tiny, base)) for base in ('a', 'b', 'a@current', 'b@current', 'a@x/b')]
    assert hashes[0] == hashes[1] == hashes[4] != hashes[2] == hashes[3]


def test_checkpoints_hold_only_what_is_the_runs_own(tiny, painted, tmp_path):
    train(copying(tiny, painted), tmp_path / 'run', quiet=True)
    run = runs.open_run(tmp_path / 'run')
    assert {name.split('/')[1] for name in flatten(run.restore()[1]) if '/' in name} >= {'copy'}
    assert not [name for name in flatten(run.restore()[1]) if 'palette' in name or 'lent' in name]
    assert run.manifest['parameters'] == {'copy': 2}
    assert run.manifest['borrowed']['base']['state_sha256'] == runs.Folder(painted).read_summary()['state_sha256']


def test_samples_and_scores_use_what_is_lent(tiny, painted, tmp_path):
    train(copying(tiny, painted), tmp_path / 'run', quiet=True)
    _, state = runs.open_run(tmp_path / 'run').restore()
    own = float((state['averages']['ema']['copy']['colour'] * state['aux']['copy']['count']).sum())
    light = own + light_of(painted)
    draw.draw_to_file(tmp_path / 'run', tmp_path / 'x.npz', count=3, sampler='', seed=0, given=())
    assert (np.load(tmp_path / 'x.npz')['images'] == int(light) % 17).all()
    rows = harness.evaluate(tmp_path / 'run', ['evaluation.metrics=likelihood'], quiet=True)
    (found,) = [row['value'] for row in rows if row['metric'] == 'bits_per_dim']
    assert found == pytest.approx(light / (64 * np.log(2)), rel=1e-5)


def test_what_a_lender_has_borrowed_is_lent_with_it(tiny, painted, tmp_path):
    train(copying(tiny, painted), tmp_path / 'first', quiet=True)
    train(copying(tiny, tmp_path / 'first', 'train.num_steps=1'), tmp_path / 'second', quiet=True)
    _, state = runs.open_run(tmp_path / 'first').restore()
    own = float((state['averages']['ema']['copy']['colour'] * state['aux']['copy']['count']).sum())
    assert rows_of(tmp_path / 'second')[-1]['paint/base'] == pytest.approx(own + light_of(painted), rel=1e-6)


def again(config, folder):
    """Take the last two steps back, and do them once more."""
    shutil.rmtree(folder / 'checkpoints' / '4')
    (folder / 'summary.json').unlink()
    return train(config, folder, quiet=True).summary['state_sha256']


def test_a_run_whose_lender_has_moved_goes_on_where_the_config_names_it_anew(tiny, painter, tmp_path):
    whole = train(copying(tiny, painter), tmp_path / 'run', quiet=True).summary['state_sha256']
    moved = painter.rename(tmp_path / 'moved')
    with pytest.raises(UserError, match=r'family.base: the borrowed run is no longer in .*painter'):
        again(copying(tiny, painter), tmp_path / 'run')
    assert train(copying(tiny, moved), tmp_path / 'run', quiet=True).summary['state_sha256'] == whole
    assert len(harness.evaluate(tmp_path / 'run', ['evaluation.metrics=likelihood'], quiet=True)) == 1


def test_a_lender_that_has_changed_since_is_refused_before_anything_compiles(tiny, painter, tmp_path, monkeypatch):
    config = copying(tiny, painter)
    train(config, tmp_path / 'run', quiet=True)
    shutil.rmtree(painter)
    train(tiny('painter', 'optimizer.learning_rate=0.2'), painter, quiet=True)
    monkeypatch.setattr('jax.jit', None)
    changed = r'family.base: .*painter has changed since it was borrowed: no checkpoint 4 has the hash \w{12}'
    with pytest.raises(UserError, match=changed):
        again(config, tmp_path / 'run')
    for use in (lambda: harness.evaluate(tmp_path / 'run', quiet=True), lambda: list(replay(tmp_path / 'run', 3))):
        with pytest.raises(UserError, match=changed):
            use()


def test_a_lender_that_went_on_still_lends_the_checkpoint_that_it_lent(tiny, painter, tmp_path):
    whole = train(copying(tiny, painter), tmp_path / 'run', quiet=True).summary['state_sha256']
    options = ('train.power_widths=(0.1,)', 'train.snapshot_every=1', 'optimizer.learning_rate=0.1')
    train(tiny('painter', *options, 'train.num_steps=6'), painter, quiet=True)
    assert again(copying(tiny, painter), tmp_path / 'run') == whole


def test_an_exported_run_needs_no_other(tiny, painter, tmp_path, capsys):
    train(copying(tiny, f'{painter}@power:0.2'), tmp_path / 'first', quiet=True)
    config = copying(tiny, tmp_path / 'first', f'family.guide={painter}')
    whole = train(config, tmp_path / 'second', quiet=True).summary['state_sha256']
    out = tmp_path / 'whole'
    assert cli.main(['checkpoint', 'export', str(tmp_path / 'second'), '--out', str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # itself, its two lenders, and that of the first
    for folder in (painter, tmp_path / 'first', tmp_path / 'second'):
        shutil.rmtree(folder)
    assert again(config, out) == whole
    assert len(harness.evaluate(out, ['evaluation.metrics=likelihood'], quiet=True)) == 1
    train(copying(tiny, out, 'train.num_steps=1'), tmp_path / 'third', quiet=True)
    assert cli.main(['checkpoint', 'export', str(out), '--out', str(tmp_path)]) == 2
    assert 'exists; choose a new folder' in capsys.readouterr().err
    assert cli.main(['checkpoint', 'export', str(out), '--out', str(out / 'inside')]) == 2
    assert 'is inside the run' in capsys.readouterr().err


def test_replay_dry_run_and_inventory_see_what_is_lent(tiny, painted, tmp_path, capsys):
    config = copying(tiny, painted)
    train(config, tmp_path / 'run', quiet=True)
    row = rows_of(tmp_path / 'run')[2]
    assert any(f'loss {row["paint/loss"]:.6g}' in line for line in replay(tmp_path / 'run', 2))
    assert 'borrowed runs: 12 bytes per device' in dry_run.describe(config)  # two colours and a count
    assert cli.main(['checkpoint', 'show', str(tmp_path / 'run')]) == 0
    assert f'borrowed base: checkpoint 4 of {painted}, average ema' in capsys.readouterr().out


ON_TWO_DEVICES = """
import json, pathlib, sys
import test_borrowed as tests
from genbench import config as configs
from genbench.training.loop import train

folder = pathlib.Path(sys.argv[2])
config = configs.resolve(json.loads(sys.argv[1]))
whole = train(config, folder, quiet=True).summary
print(json.dumps([whole['devices'], whole['state_sha256'], tests.again(config, folder)]))
"""


@pytest.mark.parametrize(
    ('family', 'options'),
    [
        ('copyist', ()),
        ('copyist', ('mesh.data=1', 'mesh.fsdp=2', "mesh.rules=('colour$=fsdp',)")),  # of lender and borrower
        pytest.param('consistency', (), marks=pytest.mark.slow),
    ],
    ids=['data', 'fsdp', 'distilled'],
)
def test_a_stopped_run_ends_as_an_unbroken_one_on_two_devices(tiny, painted, trained, tmp_path, family, options):
    lent = f'family.teacher={trained("diffusion")}' if family == 'consistency' else f'family.base={painted}'
    values = json.dumps(configs.plain(tiny(family, lent, 'checkpoint.every=2', *options)))
    paths = os.pathsep.join([os.environ['PYTHONPATH'], str(pathlib.Path(__file__).parent)])
    environment = {**os.environ, 'PYTHONPATH': paths, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '2'}
    command = [sys.executable, '-c', ON_TWO_DEVICES, values, str(tmp_path / 'run')]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    devices, whole, resumed = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2 and whole == resumed


def test_a_student_learns_the_same_from_micro_batches(tiny, on_loans, tmp_path):
    """Images keep their keys and times in whatever micro-batch they are, and the teacher is there in each."""
    rows = []
    for parts in (1, 2):
        options = ('train.num_steps=2', f'train.accumulate={parts}', *on_loans('consistency'))
        train(tiny('consistency', *options), tmp_path / str(parts), quiet=True)
        rows.append([row['student/loss'] for row in read_rows(tmp_path / str(parts) / 'metrics.jsonl')])
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-4)
