"""One device or eight: the same run."""

import os
import subprocess
import sys

import numpy as np
import pytest

from genbench.training.metrics import read_rows


def train_on(devices, config, workdir):
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    words = ['train', f'--config={config}', f'--workdir={workdir}']
    return subprocess.run(
        [sys.executable, '-m', 'genbench', *words], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize('family', ['diffusion', 'gan'])
def test_losses_do_not_depend_on_the_number_of_devices(tiny, config_file, tmp_path, family):
    config = config_file(tiny(family))
    losses = {}
    for devices in (1, 8):
        done = train_on(devices, config, tmp_path / str(devices))
        assert done.returncode == 0, done.stderr
        rows = read_rows(tmp_path / str(devices) / 'metrics.jsonl')
        losses[devices] = [[value for name, value in row.items() if name.endswith('/loss')] for row in rows]
        assert f'"devices": {devices}' in (tmp_path / str(devices) / 'summary.json').read_text()
    assert np.shape(losses[1]) == (4, 2 if family == 'gan' else 1)
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-4)


def test_a_batch_that_the_devices_do_not_divide_is_one_sentence(tiny, config_file, tmp_path):
    config = config_file(tiny('gaussian', 'train.batch_size=36'))
    done = train_on(8, config, tmp_path / 'run')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == 'genbench: train.batch_size is 36, which 8 devices do not divide; use for example 32.'
