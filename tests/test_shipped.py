"""Configs, studies and guides ship in the package, and are known by their names wherever genbench is started."""

import os
import pathlib
import subprocess
import sys

import pytest

from genbench import cli, shipped
from genbench import config as configs
from genbench.errors import UserError
from genbench.studies import study

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_stands_for_the_file_that_ships(elsewhere):
    wanted = configs.config_hash(configs.load(str(ROOT / 'configs/digits/vae.py')))
    for text in ('digits/vae', 'digits/vae.py', 'configs/digits/vae.py'):
        assert configs.config_hash(configs.load(text)) == wanted
    assert len(study.load('guidance').trials) == len(study.load(str(ROOT / 'experiments/guidance.py')).trials)


def test_a_file_of_the_users_own_goes_before_what_ships(elsewhere):
    (elsewhere / 'digits').mkdir()
    (elsewhere / 'digits' / 'vae.py').write_text('def get_config():\n    return {"family": {"name": "gaussian"}}\n')
    assert configs.load('digits/vae.py').family.name == 'gaussian'
    assert configs.load('digits/vae').family.name == 'vae'


def test_a_study_of_ones_own_takes_configs_that_ship(elsewhere):
    (elsewhere / 'mine.py').write_text(
        'from genbench.studies.study import Study, Trial\n\n\ndef get_study():\n'
        "    return Study(title='A study', claim='It runs.', trials=(Trial('a', 'digits/gaussian'),))\n"
    )
    (trial,) = study.load('mine.py').trials
    assert study.resolve(trial, elsewhere).family.name == 'gaussian'


def test_a_name_that_is_nearly_right_is_suggested(elsewhere):
    with pytest.raises(UserError, match='no config file digits/difusion.*Did you mean digits/diffusion'):
        configs.load('digits/difusion')
    with pytest.raises(UserError, match='no study file xyz.*genbench config list'):
        study.load('xyz')
    assert cli.main(['configs', 'copy', 'digits/difusion']) == 2


def test_what_ships_is_listed_and_copied(elsewhere, capsys):
    assert cli.main(['configs', 'list']) == 0
    listed = capsys.readouterr().out
    for folder in (shipped.CONFIGS, shipped.STUDIES, shipped.GUIDES):
        assert all(f'  {name} ' in listed for name in shipped.names(folder))
    assert cli.main(['configs', 'copy', 'digits/gan']) == 0
    copied = pathlib.Path(capsys.readouterr().out.strip())
    assert copied == pathlib.Path('configs/digits/gan.py')
    assert copied.read_text() == (ROOT / copied).read_text()
    assert cli.main(['config', 'diff', str(copied), 'digits/gan']) == 0 and capsys.readouterr().out == ''
    assert cli.main(['configs', 'copy', 'digits/gan']) == 2
    assert 'exists; name another file with --out' in capsys.readouterr().err
    assert cli.main(['configs', 'copy', 'quick_start', '--out', 'start.md']) == 0
    assert (elsewhere / 'start.md').is_file()


BUILT = """
from genbench import shipped
from genbench import config as configs
from genbench.studies import ledger, study
assert not shipped.CHECKOUT and shipped.ROOT.name == 'share', shipped.ROOT
print(*sorted(shipped.names('configs') + shipped.names('docs')))
print(study.load('prediction_types').trials[0].config)
print(configs.load('digits/diffusion').family.name)
print(ledger.describe(ledger.get('digits-gaussian'))['status'], ledger.get('digits-gaussian').path.is_file())
"""


def test_a_package_that_is_built_holds_what_ships_and_finds_it(tmp_path):
    pytest.importorskip('setuptools')
    library, empty = tmp_path / 'library', tmp_path / 'empty'
    empty.mkdir()
    command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(library)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    environment = {**os.environ, 'PYTHONPATH': str(library)}
    done = subprocess.run([sys.executable, '-c', BUILT], cwd=empty, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, trial, family, ledger = done.stdout.splitlines()
    assert names.split() == sorted(shipped.names('configs') + shipped.names('docs'))
    assert pathlib.Path(trial).is_file() and library in pathlib.Path(trial).parents
    assert (family, ledger) == ('diffusion', 'reproduced True')
    assert list(empty.iterdir()) == []
