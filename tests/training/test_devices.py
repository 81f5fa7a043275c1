"""One device or eight: the same run."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import shipped

from genbench import config as configs
from genbench.training.metrics import read_rows


def train_on(devices, config, workdir):
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    words = ['train', f'--config={config}', f'--workdir={workdir}']
    return subprocess.run(
        [sys.executable, '-m', 'genbench', *words], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'overrides'),
    [
        ('diffusion', ('family.time_sampler=low_discrepancy', 'family.uncertainty=true')),
        ('diffusion', shipped.BY_IMPORTANCE),
        ('flow_matching', ('family.coupling=optimal_transport',)),
        ('gan', ()),
    ],
)
def test_losses_do_not_depend_on_the_number_of_devices(tiny, config_file, tmp_path, family, overrides):
    config = config_file(tiny(family, *overrides))
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
    assert line == 'genbench: train.batch_size is 36, which is not divisible by 8 devices; use 32, for example.'


@pytest.fixture
def operations(tiny, lenders):
    """`operations(families)` → {'family: update': (operations on one device, over two)}, with dropout where it is."""

    def measure(names):
        asked = {}
        for name in names:
            dropout = ('network.dropout=0.1',) if 'dropout' in tiny(name).network else ()
            config = tiny(name, 'train.batch_size=256', *dropout)
            lent = {key: configs.plain(tiny(lender)) for key, lender in lenders(name).items()}
            asked[name] = configs.plain(config), lent
        script = pathlib.Path(__file__).with_name('step_flops.py')
        environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '2'}
        done = subprocess.run(
            [sys.executable, script, json.dumps(asked)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return measure


QUICK = ['gan', 'gaussian', 'vae']  # to compile


@pytest.mark.parametrize(
    'names', [QUICK, pytest.param(sorted({*shipped.NAMES} - {*QUICK}), marks=pytest.mark.slow)], ids=['quick', 'others']
)
def test_a_step_costs_the_same_over_all_devices_as_on_one(operations, names):
    """What each device does again is the optimizer and the averages, some operations for each parameter, and sums."""
    found = operations(names)
    assert len(found) >= len(names)
    ratios = {name: several / one for name, (one, several) in found.items()}
    assert {name: ratio for name, ratio in ratios.items() if not 0.97 < ratio < 1.05} == {}
