"""What `genbench train --dry-run` says of a run, against the run itself."""

import json
import re

import pytest

from genbench import cli
from genbench import config as configs
from genbench.data import opening
from genbench.errors import UserError
from genbench.training import runs
from genbench.training.metrics import read_rows
from genbench.training.state import flatten


def number(text, pattern):
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return float(found.replace(',', ''))


@pytest.fixture(scope='module')
def said(diffusion_run, tmp_path_factory):
    """The lines for the config of the tiny diffusion run, said in an empty folder."""
    folder = tmp_path_factory.mktemp('dry')
    config = json.loads((diffusion_run / 'config.json').read_text())
    (folder / 'config.py').write_text(f'def get_config():\n    return {config!r}\n')
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        lines = []
        patched.setattr('builtins.print', lines.append)
        assert cli.main(['train', '--config=config.py', '--workdir=run', '--dry-run']) == 0
    assert [path.name for path in folder.iterdir() if path.name != '__pycache__'] == ['config.py']
    return '\n'.join(lines)


def test_every_array_of_the_run_has_its_line(said, diffusion_run):
    _, state = runs.open_run(diffusion_run).restore()
    for name, leaf in flatten(state).items():
        (line,) = [line for line in said.splitlines() if line.split(' ')[0] == name]
        assert f'{leaf.shape}' in line and f' {leaf.dtype} ' in line and line.endswith(f' {leaf.nbytes:,}')


def test_bytes_and_operations_are_those_of_the_run(said, diffusion_run):
    parameters = sum(json.loads((diffusion_run / 'summary.json').read_text())['parameters'].values())
    assert number(said, r'^parameters: ([\d,]+) bytes') == 4 * parameters
    assert number(said, r'^averages: ([\d,]+) bytes') == 4 * parameters
    assert number(said, r'^optimizer: ([\d,]+) bytes') == pytest.approx(8 * parameters, abs=16)  # and its counters
    assert number(said, r'([\d,]+) bytes of temporary memory per device') > 0
    counted = [row['train/flops'] for row in read_rows(diffusion_run / 'metrics.jsonl')]
    per_step = counted[-1] - counted[-2]
    assert number(said, r'per device, (\S+) FLOPs') == pytest.approx(per_step, rel=1e-3)


def test_without_a_workdir_only_a_dry_run_goes(config_file, tiny, capsys):
    assert cli.main(['train', f'--config={config_file(tiny("gaussian"))}']) == 2
    assert capsys.readouterr().err == 'genbench: genbench train needs a run folder: --workdir=DIR.\n'


def test_a_mesh_that_does_not_fit_is_one_line(config_file, tiny, capsys):
    config = config_file(tiny('gaussian', 'mesh.data=1', 'mesh.fsdp=3', 'mesh.tensor=5'))
    assert cli.main(['train', f'--config={config}', '--dry-run']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('genbench: mesh is data=1, fsdp=3, tensor=5, but its product should be')


def test_the_data_need_not_be_prepared(config_file, tiny, capsys, tmp_path):
    config = config_file(tiny('diffusion', 'data.name=folder:absent', 'data.size=8', 'data.channels=1'))
    assert cli.main(['train', f'--config={config}', '--dry-run', f'--config.data.data_dir={tmp_path}']) == 0
    said = capsys.readouterr().out
    assert 'data: There is no folder absent. Put images there, then run: genbench data prepare folder:absent' in said
    assert 'Meanwhile one batch of noise takes the place of the images.' in said
    assert 'training images' not in said
    with pytest.raises(UserError, match='There is no folder absent'):  # elsewhere, no shape is guessed
        opening.spec(configs.load(str(config)).data)


def test_a_config_stands_in_the_place_of_a_run_that_is_not_there(config_file, tiny, capsys):
    teacher = config_file(tiny('diffusion'), 'teacher.py')
    config = config_file(tiny('consistency', f'family.teacher={teacher}'))
    assert cli.main(['train', f'--config={config}', '--dry-run']) == 0
    assert 'borrowed runs' in capsys.readouterr().out
    assert cli.main(['train', f'--config={config}', '--workdir=never']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'teacher.py is a config, and only dry runs accept one here. Train it and give the folder of the run.' in line
