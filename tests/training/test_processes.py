"""Several processes: the same run as one, whole on any number of devices, and stopped together."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest
from joined import finish, start

from genbench import cli
from genbench.errors import INTERRUPTED, UserError
from genbench.training import processes, runs
from genbench.training.metrics import read_rows

RUN = {  # kernels large enough to be split over every axis, and few convolutions, which take long to compile
    'family': {'name': 'diffusion'},
    'network': {'name': 'dit', 'width': 64, 'depth': 1},
    'train': {'num_steps': 6, 'batch_size': 32, 'log_every': 1},
    'checkpoint': {'every': 2},
}


def training(config, workdir, *changes):
    return [
        '-m',
        'genbench',
        'train',
        f'--config={config}',
        f'--workdir={workdir}',
        *(f'--config.{c}' for c in changes),
    ]


def losses(workdir):
    return [[row['step'], row['denoiser/loss']] for row in read_rows(workdir / 'metrics.jsonl')]


@pytest.mark.slow
def test_a_run_may_move_between_processes_and_devices(config_file, tmp_path):
    config, moved, stayed = config_file(RUN), tmp_path / 'moved', tmp_path / 'stayed'
    finish(start(training(config, stayed, 'mesh.fsdp=2', 'mesh.tensor=2'), devices=4))

    finish(start(training(config, moved, 'train.num_steps=2', 'mesh.fsdp=4'), devices=2, number=2))
    finish(start(training(config, moved, 'train.num_steps=4', 'mesh.fsdp=2'), devices=2))
    finish(start(training(config, moved), devices=1))

    assert np.shape(losses(moved)) == (6, 2)
    np.testing.assert_allclose(losses(moved), losses(stayed), rtol=1e-4)
    assert json.loads((moved / 'summary.json').read_text())['step'] == 6


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_and_saves_both_at_the_same_step(tiny, config_file, tmp_path):
    config, run = config_file(tiny('gaussian', 'mesh.fsdp=4', 'train.num_steps=1_000_000')), tmp_path / 'run'
    pair = start(training(config, run), devices=2, number=2)
    try:
        deadline = time.monotonic() + 200
        while len(read_rows(run / 'metrics.jsonl')) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        pair[1].send_signal(signal.SIGTERM)
    finally:
        finish(pair, INTERRUPTED)
    summary = json.loads((run / 'summary.json').read_text())
    assert 3 <= summary['step'] < 1_000_000 and not summary['complete']
    assert [row['step'] for row in read_rows(run / 'metrics.jsonl')] == list(range(1, summary['step'] + 1))
    # A checkpoint with shards of two steps would not have the hash that it was saved with.
    step, state = runs.open_run(run).restore()
    assert step == summary['step'] == int(state['step'])


ORDER = """
import sys
import jax, numpy as np
from genbench.data import pipeline
from genbench.data.sources import Arrays
from genbench.training import mesh as meshes, processes
address, number, index = (word.split('=')[1] for word in sys.argv[1:])
processes.connect(address, int(number), int(index))
from jax.experimental import multihost_utils
images = np.arange(40 * 3, dtype=np.uint8).reshape(40, 1, 1, 3)
records = [{'image': image, 'label': label} for label, image in enumerate(images)]
order = pipeline.Order(40, seed=1)
for sizes in ({'data': 4}, {'data': 2, 'fsdp': 2}, {'data': 1, 'fsdp': 2, 'tensor': 2}, {'data': 1, 'tensor': 4}):
    place = meshes.split_batch(meshes.make_mesh(sizes))
    resident = pipeline.ResidentFeed(Arrays(images, np.arange(40, dtype=np.int32)), order, 16, place)
    streamed = pipeline.StreamedFeed(records, order, 16, place, threads=2, ahead=2)
    constants = meshes.put(resident.constants, meshes.replicated(place.mesh))
    for step in (0, 1, 5):
        for feed, held in ((resident, constants), (streamed, ())):
            batch = jax.jit(feed.batch)(held, feed.inputs(step))
            batch = {name: multihost_utils.process_allgather(values, tiled=True) for name, values in batch.items()}
            np.testing.assert_array_equal(batch['label'], order.indices(16 * step, 16))
            np.testing.assert_array_equal(batch['image'], images[batch['label']])
            assert batch['image'].dtype == np.int32
"""


@pytest.mark.slow
def test_two_processes_see_the_global_batches_in_order_on_any_mesh():
    finish(start(['-c', ORDER], devices=2, number=2))


@pytest.mark.parametrize(
    'flags, message',
    [
        (('127.0.0.1:1', None, None), 'go together; give all three'),
        (('', 2, 0), 'go together; give all three'),
        (('127.0.0.1:1', 2, 2), 'counts from 0'),
        (('127.0.0.1:1', 2, -1), 'counts from 0'),
    ],
)
def test_flags_that_do_not_fit_are_one_line(flags, message):
    with pytest.raises(UserError, match=message) as caught:
        processes.connect(*flags)
    assert '\n' not in str(caught.value)


def test_one_process_of_a_slurm_step_is_no_reason_to_join_and_several_are():
    assert processes.tasks({}) == 1
    assert processes.tasks({'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'}) == 1
    assert processes.tasks({'SLURM_NTASKS': '4'}) == 1  # the shell of salloc or sbatch
    assert processes.tasks({'SLURM_STEP_NUM_TASKS': '4', 'SLURM_PROCID': '3'}) == 4


@pytest.mark.parametrize(
    'verb, rest', [('evaluate', []), ('sample', ['--out=x.png']), ('metrics', ['b.npz']), ('train', ['--workdir=w'])]
)
def test_verbs_that_join_other_processes_check_their_flags(verb, rest, capsys):
    words = ['--config=digits/gaussian', *rest] if verb == 'train' else ['a', *rest]
    assert cli.main([verb, *words, '--coordinator=127.0.0.1:1', '--num-processes=2']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'go together; give all three' in line


@pytest.mark.parametrize('count, number', [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_the_parts_of_processes_are_equal_and_in_order(count, number, monkeypatch):
    monkeypatch.setattr(jax, 'process_count', lambda: number)
    spans = []
    for index in range(number):
        monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
        spans.append(processes.part(5, 5 + count))
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(5, 5 + count))
    assert max(b - a for a, b in spans) - min(b - a for a, b in spans) <= 1


def test_asked_to_stop_by_a_signal_and_only_while_entered():
    before = signal.getsignal(signal.SIGTERM)
    with processes.StopRequest() as stop:
        assert not stop.reached(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reached(1) and stop.reached(2)
    assert signal.getsignal(signal.SIGTERM) is before
