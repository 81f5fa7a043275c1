"""A family outside the repository: made by genbench init, and used from a folder that knows nothing of it."""

import json
import pickle
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from genbench import cli, families
from genbench import config as configs
from genbench.errors import UserError
from genbench.families import own, registry
from genbench.studies import identity, state
from genbench.studies.launchers.task import Task
from genbench.training import runs
from genbench.training.files import write_atomically
from genbench.training.loop import train
from genbench.training.metrics import read_rows

EVALUATION = ('evaluation.metrics=fd,likelihood', 'evaluation.num_samples=64', 'evaluation.sets=1',
              'evaluation.classifier.num_steps=5', 'evaluation.classifier.channels=8')  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project `outer`, whose family is not imported yet; the working directory is another one, and empty."""
    empty = tmp_path / 'empty'
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    assert cli.main(['init', 'outer', '--out', str(tmp_path / 'outer')]) == 0
    yield tmp_path / 'outer'
    sys.modules.pop('outer', None)
    registry._REGISTRY.pop('outer', None)


def test_a_project_passes_its_tests_and_has_its_own_name(project, capsys):
    assert pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', str(project), str(project / 'tests')]) == 0
    assert '2 passed' in capsys.readouterr().out
    written = {str(path.relative_to(project)) for path in project.rglob('*.*') if '__pycache__' not in str(path)}
    assert written == {
        'README.md', 'outer.py', 'configs/digits.py', 'experiments/learning_rates.py', 'tests/test_outer.py',
    }  # fmt: skip
    text = ''.join((project / name).read_text() for name in written)
    assert 'class Outer(Family)' in text and 'my_family' not in text and 'MyFamily' not in text


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('My-Family', 'is not a module name'),
        ('class', 'is not a module name'),
        ('json', 'is taken; choose another one'),
        ('diffusion', 'is taken; choose another one'),
        ('outer', 'exists; choose another name'),
    ],
)
def test_a_project_that_cannot_be_made(name, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'outer').mkdir()
    assert cli.main(['init', name]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['outer']


def test_a_family_of_ones_own_goes_through_everything(project, wait, capsys, monkeypatch):
    """Train and kill; resume and evaluate as a job of SLURM would, from a pickle; two trials, and their page."""
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))  # the same sums in every process
    config, run = project / 'configs' / 'digits.py', project.parent / 'run'
    texts = ['train.num_steps=1500', 'train.log_every=100', 'checkpoint.every=100', *EVALUATION]
    words = [sys.executable, '-m', 'genbench', 'train', f'--config={config}', f'--workdir={run}']
    process = subprocess.Popen([*words, *(f'--config.{text}' for text in texts)], stderr=subprocess.DEVNULL)
    wait((run / 'checkpoints' / '100').is_dir, 'a checkpoint', 120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / 'summary.json').exists()

    resolved = configs.load(str(config), texts)
    assert resolved.family.modules == (f'{project}:outer',)
    wanted = run / 'wanted.json'
    write_atomically(wanted, configs.to_json(resolved))
    identity.write(run, identity.of(resolved), grid=[])
    monkeypatch.setenv('SLURM_NTASKS', '1')
    pickle.loads(pickle.dumps(Task(str(wanted), str(run))))()
    assert state.read(run)['state'] == 'done'
    assert [row['step'] for row in read_rows(run / 'starts.jsonl')][-1] >= 100  # it went on
    unbroken = train(resolved, project.parent / 'unbroken', quiet=True).summary
    assert json.loads((run / 'summary.json').read_text())['state_sha256'] == unbroken['state_sha256']
    rows = {row['metric']: row for row in read_rows(run / 'results.jsonl')}
    assert rows['bits_per_dim']['kind'] == 'exact' and rows['fd']['value'] > 0
    assert runs.open_run(run).manifest['modules'] == own.digests(resolved.family.modules)
    assert cli.main(['report', str(run)]) == 0 and 'outer' in (run / 'report.html').read_text()

    study, out = project / 'experiments' / 'learning_rates.py', project.parent / 'study'
    study.write_text(study.read_text().replace('seeds=(0, 1)', 'seeds=(0,)'))
    shorter = [f'--config.{text}' for text in ('train.num_steps=20', *EVALUATION)]
    assert cli.main(['run', str(study), '--out', str(out), *shorter]) == 0
    assert '2 of 2 trials done' in capsys.readouterr().out
    page = (out / 'report.html').read_text()
    assert 'learning_rate=0.003' in page and 'Learning rates' in page
    assert len({json.loads(path.read_text())['code'] for path in out.glob('trials/*/trial.json')}) == 1


def test_a_run_finds_its_module_after_the_project_has_moved(project, tmp_path):
    config = configs.load(str(project / 'configs' / 'digits.py'), ['train.num_steps=2'])
    train(config, project / 'runs' / 'a', quiet=True)
    kept = configs.config_hash(config)
    for name in ('outer', 'outer.py'):
        sys.modules.pop(name, None)
    registry._REGISTRY.pop('outer')
    moved = shutil.move(project, tmp_path / 'moved')
    run = runs.open_run(moved / 'runs' / 'a')
    assert run.config.family.modules == (f'{moved}:outer',) and configs.config_hash(run.config) == kept


def test_the_code_of_a_module_is_part_of_a_trial(project):
    config = configs.load(str(project / 'configs' / 'digits.py'))
    before = identity.of(config)
    (project / 'outer.py').write_text((project / 'outer.py').read_text() + '# changed\n')
    identity.code.cache_clear()
    after = identity.of(config)
    assert before.same_config == after.same_config and before.code != after.code


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('import nowhere_to_be_found\n', r'The module wrong .* cannot be imported: ModuleNotFoundError: .*nowhere'),
        ('raise SystemExit\n', 'The module wrong .* cannot be imported: SystemExit'),
        ('def (:\n', 'cannot be imported: SyntaxError'),
        ('from genbench.families.base import *\nregister("gan")(type("A", (Family,), {}))\n', "a family 'gan'"),
        ('x = 1\n', "There is no family 'wrong'; your own family needs family.modules"),
        (None, 'The module wrong .* is neither installed nor in .*Start genbench in the folder'),
    ],
)
def test_a_module_that_is_wrong_is_said_in_one_line(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    before = dict(registry._REGISTRY)
    if text is not None:
        (tmp_path / 'wrong.py').write_text(text)
    try:
        with pytest.raises(UserError, match=words):
            configs.resolve({'family': {'name': 'wrong', 'modules': ('wrong',)}})
    finally:
        sys.modules.pop('wrong', None)
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)


def test_a_module_whose_name_is_taken_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'json.py').write_text('')
    with pytest.raises(UserError, match='has a module json .*but Python already has another one'):
        configs.resolve({'family': {'name': 'gaussian'}}, ['family.modules=json'])
    with pytest.raises(UserError, match='write a module as Python imports it'):
        configs.resolve({'family': {'name': 'gaussian'}}, ['family.modules=a-b.py'])


def test_without_modules_the_hash_of_a_config_is_what_it_was():
    assert 'family.modules' not in configs.identity(configs.resolve({'family': {'name': 'gaussian'}}))
    assert families.get('gaussian').__module__ == 'genbench.families.gaussian'
