"""Evaluation in several processes: each draws, scores and keeps its own images, and the rows are those of one."""

import json
import shutil

import numpy as np
import pytest
from joined import finish, start

from genbench.evaluation import harness
from genbench.evaluation.distances import Moments, moments, pooled
from genbench.training.metrics import read_rows
from tests.evaluation.together import CHANGES, draw_and_compare

TOGETHER = """
import pathlib, sys
from genbench import cli
from genbench.errors import UserError
from genbench.training import processes
from tests.evaluation.together import CHANGES, draw_and_compare
folder, *flags = sys.argv[1:]
assert cli.main(['evaluate', f'{folder}/run', *(f'--config.{change}' for change in CHANGES), *flags]) == 0
draw_and_compare(pathlib.Path(folder))
try:
    processes.first_does(lambda: 1 / 0)
except (ZeroDivisionError, UserError) as error:  # in the first one, and in the other, which does not wait for ever
    assert str(error) == 'division by zero'
else:
    raise AssertionError
"""


@pytest.fixture(scope='module')
def both(trained, tmp_path_factory):
    """The folder that two processes have worked in, and the same of one process."""
    pair, alone = (tmp_path_factory.mktemp(name) for name in ('pair', 'alone'))
    a, b = np.random.default_rng(0).integers(0, 256, (2, 301, 8, 8, 1), np.uint8)
    for folder in (pair, alone):
        shutil.copytree(trained('gaussian'), folder / 'run')
        np.savez(folder / 'a.npz', images=a)
        np.savez(folder / 'b.npz', images=b)
    first, second = finish(start(['-c', TOGETHER, str(pair)], devices=1, number=2))
    assert ['training_seconds' in said for said in (first, second)] == [True, False]  # one of them prints
    harness.evaluate(alone / 'run', CHANGES, quiet=True)
    draw_and_compare(alone)
    return pair, alone


def timeless(path):
    """{metric, sampler and method: row} without what a machine took."""
    rows = [row for row in read_rows(path) if row['metric'] != 'sampling_images_per_second']
    return {(row['metric'], row['sampler'], row['protocol'].get('method')): row for row in rows}


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one(both):
    pair, alone = (timeless(folder / 'run' / 'results.jsonl') for folder in both)
    assert pair.keys() == alone.keys() and {'fd', 'kd', 'precision', 'bits_per_dim'} <= {key[0] for key in pair}
    for key, row in pair.items():
        assert row['protocol_hash'] == alone[key]['protocol_hash'] and row['n'] == alone[key]['n']
        for number in ('value', 'sd', 'std_err', 'values'):
            found, wanted = (np.array(one[number], np.float64) for one in (row, alone[key]))  # null is NaN
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7, err_msg=f'{key} {number}')


@pytest.mark.slow
def test_each_process_keeps_the_images_that_it_has_drawn_and_they_are_those_of_one(both):
    def kept(folder):
        files = sorted((folder / 'run').glob('evaluation/samples/*/*.npz'))
        return {file.name for file in files}, [np.load(file)['images'] for file in files]

    (pair, parts), (alone, whole) = kept(both[0]), kept(both[1])
    assert {'shard_00000.npz', 'shard_00000_0075.npz'} <= pair and alone == {'shard_00000.npz'}
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))
    assert not list((both[0] / 'run' / 'evaluation' / 'likelihood').glob('*.*-*.npz'))  # parts that were joined
    (speed,) = (
        row for row in read_rows(both[0] / 'run/results.jsonl') if row['metric'] == 'sampling_images_per_second'
    )
    assert speed['protocol']['machine']['processes'] == speed['protocol']['machine']['count'] == 2


@pytest.mark.slow
def test_two_processes_sample_and_compare_as_one(both):
    pair, alone = [np.load(folder / 'x.npz')['images'] for folder in both]
    np.testing.assert_array_equal(pair, alone)
    for name in ('moments', 'features', 'run'):
        (found,), (wanted,) = (json.loads((folder / f'{name}.json').read_text())['rows'] for folder in both)
        assert found['protocol'] == wanted['protocol']
        assert found['value'] == pytest.approx(wanted['value'], rel=1e-9, abs=1e-12), name


def test_pooled_moments_are_those_of_all_rows():
    rows = np.random.default_rng(1).normal(1e6, 3.0, (50, 4))
    parts = []
    for chosen in (rows[:1], rows[1:30], rows[30:]):
        one = Moments(4)
        one.add(chosen)
        parts.append(one.parts())
    found = pooled(*(np.array(values) for values in zip(*parts, strict=True)))
    np.testing.assert_allclose(found[0], rows.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found[1], np.cov(rows.T), rtol=1e-8)
    np.testing.assert_allclose(moments(rows)[1], np.cov(rows.T), rtol=1e-8)
