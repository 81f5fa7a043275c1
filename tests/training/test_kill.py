"""A run that is killed at any moment, also inside a save, goes on from its newest checkpoint as if nothing had been."""

import multiprocessing
import random
import time

import pytest

from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.telemetry import read_starts

PRELOADED = ['genbench.training.loop', 'orbax.checkpoint.v1', 'tensorflow_datasets', 'tensorboardX', 'scipy.stats']
DEADLINE = 180  # seconds that one start may take


@pytest.fixture(scope='module')
def start():
    """`start(config, folder)` → a process that trains; it is forked from one that has imported everything."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(PRELOADED)

    def begin(config, folder):
        process = context.Process(target=train, args=(config, folder), kwargs={'quiet': True})
        process.start()
        return process

    return begin


def committed(folder):
    return sorted(int(path.name) for path in (folder / 'checkpoints').glob('*') if path.name.isdigit())


def unfinished(folder):
    """Checkpoints that are being saved, or that a kill left behind."""
    return {path.name for path in (folder / 'checkpoints').glob('*') if not path.name.isdigit()}


def wait(process, condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.is_alive(), 'the run ended before it was killed'
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def kill_somewhere(process, folder, draw):
    """Kill it inside a save, soon after a new row, or at any moment since its start; → whether inside a save."""
    before, rows = unfinished(folder), len(read_rows(folder / 'metrics.jsonl'))
    where = draw.choice(['save', 'save', 'row', 'start'])
    if where == 'save':
        wait(process, lambda: unfinished(folder) - before)
    elif where == 'row':
        wait(process, lambda: len(read_rows(folder / 'metrics.jsonl')) not in (0, rows))
        time.sleep(draw.uniform(0, 0.05))
    else:
        time.sleep(draw.uniform(0, 2))
    process.kill()
    process.join()
    return bool(unfinished(folder))


@pytest.mark.parametrize('kills', [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_run_equals_an_unbroken_one(tiny, tmp_path, start, kills):
    steps = 20 * kills + 40
    config = tiny('gaussian', f'train.num_steps={steps}', 'checkpoint.every=3', 'checkpoint.keep=2')
    run, draw, restored, inside = tmp_path / 'killed', random.Random(kills), [0], 0
    for _ in range(kills):
        inside += kill_somewhere(start(config, run), run, draw)
        restored.append(max(committed(run), default=0))
    last = start(config, run)
    last.join(DEADLINE)
    assert last.exitcode == 0
    assert inside >= kills // 4
    assert not unfinished(run)
    starts = [row['step'] for row in read_starts(run / 'starts.jsonl')]
    assert set(starts) <= set(restored) and starts[-1] == restored[-1] and starts == sorted(starts)
    assert [row['step'] for row in read_rows(run / 'metrics.jsonl')] == list(range(1, steps + 1))
    ends = train(config, run, quiet=True), train(config, tmp_path / 'unbroken', quiet=True)
    assert ends[0].already
    assert ends[0].summary['state_sha256'] == ends[1].summary['state_sha256']
