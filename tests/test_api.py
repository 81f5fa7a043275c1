"""genbench in Python: light to import, the same runs as the command line's, and a notebook that works as it is."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import genbench
from genbench import cli
from genbench import config as configs
from genbench.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / 'docs' / 'python.ipynb'


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The process of the tests keeps its one device, which other tests count on."""
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')


def test_importing_genbench_imports_nothing_heavy():
    code = (
        'import sys, genbench\n'
        'print(genbench.__version__, "train" in dir(genbench))\n'
        'print(sorted({"jax", "flax", "numpy", "ml_collections", "genbench.api"} & set(sys.modules)))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f'{genbench.__version__} True', '[]']
    with pytest.raises(AttributeError, match='no attribute'):
        _ = genbench.trian


def test_a_run_of_python_is_the_run_of_the_command_line(tiny, trained, config_file, tmp_path, capsys):
    """The same state from a mapping with overrides as `trained` has from a config, and the same images as `sample`."""
    values = configs.plain(tiny('gaussian'))
    run = genbench.train(values, tmp_path / 'run', {'checkpoint.every': 2}, quiet=True)
    assert run.summary['state_sha256'] == genbench.load_run(trained('gaussian')).summary['state_sha256']
    assert [row['step'] for row in run.metrics] == [1, 2, 3, 4] and run.config.checkpoint.every == 2
    assert cli.main(['train', f'--config={config_file(tiny("gaussian"))}', f'--workdir={run.path}']) == 0
    assert 'is complete' in capsys.readouterr().out
    images = run.sample(6, seed=3)
    assert images.shape == (6, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(run.sample(3, seed=3), images[:3])
    assert cli.main(['sample', str(run.path), '--count=6', '--seed=3', f'--out={tmp_path}/x.npz']) == 0
    drawn = np.load(tmp_path / 'x.npz')
    np.testing.assert_array_equal(images, np.round(drawn['images'] * 255 / (drawn['levels'] - 1)))
    assert (run.sample(6, seed=3, average='current', step=2) != images).any()


def test_rows_are_returned_once_and_kept(trained, tmp_path):
    run = genbench.train(configs.plain(genbench.load_run(trained('gaussian')).config), tmp_path / 'run', quiet=True)
    options = {'evaluation.metrics': ('likelihood',)}
    (row,) = genbench.evaluate(run, options, quiet=True)
    assert row['metric'] == 'bits_per_dim' and row['protocol']['method'] == 'density_1'
    assert genbench.evaluate(run.path, ['evaluation.metrics=likelihood'], quiet=True) == []
    assert [one['value'] for one in run.results] == [row['value']]


def test_mistakes_are_user_errors(trained, tmp_path):
    with pytest.raises(UserError, match='is not a run'):
        genbench.load_run(tmp_path)
    with pytest.raises(UserError, match='no config file'):
        genbench.train('digits/difusion', tmp_path / 'run')
    with pytest.raises(UserError, match='overrides is the string'):
        genbench.train('digits/diffusion', tmp_path / 'run', 'train.num_steps=3')
    run = genbench.load_run(trained('diffusion'))
    with pytest.raises(UserError, match='should be at least 1'):
        run.sample(0)
    with pytest.raises(UserError, match="'emma'; this run has"):
        run.sample(1, average='emma')
    assert repr(run).endswith(': diffusion of digits')
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_runs_as_it_is(tmp_path, monkeypatch):
    """Its code, cell by cell, with fewer steps and images and smaller networks; no kernel is needed."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook['nbformat'] == 4 and not any(cell.get('outputs') for cell in notebook['cells'])
    code = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    smaller = {
        'steps, images = 300, 180': 'steps, images = 4, 32',
        "{'train.num_steps': steps}": "{'train.num_steps': steps, 'network.channels': 8, 'network.multipliers': (1,)}",
        "'evaluation.sets': 1,": "'evaluation.sets': 1, 'evaluation.classifier.num_steps': 5,",
    }
    names: dict = {}
    for text in code:
        for written, less in smaller.items():
            text = text.replace(written, less)
        exec(compile(text, str(NOTEBOOK), 'exec'), names)
    assert all(written in ''.join(code) for written in smaller)
    assert names['later'].summary['complete'] and len(names['rows']) == 4
