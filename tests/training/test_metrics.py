"""metrics.jsonl survives a crash in mid-line, and a resumed run continues it without gaps or repeats."""

import json
import shutil
import subprocess
import sys

import pytest

from genbench.training.files import append_line
from genbench.training.loop import train
from genbench.training.metrics import MetricsLog, Progress, read_rows


def row(step):
    return {'step': step, 'wall_time': 0.5 * step, 'images_seen': 32 * step, 'net/loss': 1 / step}


def write_rows(path, steps, tail=''):
    path.write_text(''.join(json.dumps(row(step)) + '\n' for step in steps) + tail)


def reopened(path, restored_step):
    return MetricsLog(path, path.with_name('events'), restored_step)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'metrics.jsonl'


def test_a_file_that_is_not_there_has_no_rows(path):
    assert read_rows(path) == []


def test_a_half_written_last_line_is_left_out(path):
    write_rows(path, [1, 2], tail=json.dumps(row(3))[:17])
    assert read_rows(path) == [row(1), row(2)]


def test_a_row_after_a_half_written_line_stands_on_a_line_of_its_own(path):
    write_rows(path, [1, 2], tail='{"step": 3, "wal')
    log = reopened(path, restored_step=2)
    log.write(row(3))
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row(1), row(2), row(3)]


def test_rows_past_the_restored_step_are_dropped(path):
    write_rows(path, [1, 2, 3, 4])
    log = reopened(path, restored_step=2)
    log.close()
    assert read_rows(path) == [row(1), row(2)]
    assert log.wall_time == row(2)['wall_time']


def test_operations_go_on_only_from_the_row_of_the_restored_step(path):
    path.write_text(json.dumps({**row(2), 'train/flops': 7.0}) + '\n')
    log, later = reopened(path, restored_step=2), reopened(path, restored_step=3)  # whose row a crash took
    for one in (log, later):
        one.spend(3.0)
        one.close()
    assert (log.flops, later.flops) == (10.0, None)


def test_an_unknown_number_of_operations_stays_unknown(path):
    log = reopened(path, restored_step=0)
    for number in (1.0, None, 2.0):
        log.spend(number)
    log.close()
    assert log.flops is None


def test_a_fresh_run_starts_an_empty_file(path):
    write_rows(path, [1, 2])
    log = reopened(path, restored_step=0)
    log.close()
    assert (read_rows(path), log.wall_time) == ([], 0.0)


def test_scalars_go_to_tensorboard_too(path):
    log = reopened(path, restored_step=0)
    log.write(row(1))
    log.close()
    (events,) = path.with_name('events').iterdir()
    assert b'net/loss' in events.read_bytes()


def test_events_do_not_import_torch(path):
    code = (
        'import pathlib, sys\n'
        'from genbench.training.metrics import Events\n'
        f'Events(pathlib.Path({str(path.parent)!r}), 1).write(1, {{"net/loss": 0.5}})\n'
        'print("torch" in sys.modules)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'False\n'


def test_a_resumed_run_neither_repeats_nor_loses_a_row(tiny, tmp_path):
    """Its newest checkpoint is gone, so it repeats steps that it has logged."""
    short, full = (tiny('gaussian', 'checkpoint.every=2', f'train.num_steps={steps}') for steps in (4, 6))
    train(short, tmp_path, quiet=True)
    shutil.rmtree(tmp_path / 'checkpoints' / '4')
    train(full, tmp_path, quiet=True)
    rows = read_rows(tmp_path / 'metrics.jsonl')
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    times = [row['wall_time'] for row in rows]
    assert times == sorted(times)
    assert [row['moments/images'] for row in rows] == [32 * step for step in range(1, 7)]


def test_rows_hold_the_mean_since_the_row_before(tiny, tmp_path):
    train(tiny('gaussian', 'train.log_every=2', 'train.num_steps=5'), tmp_path, quiet=True)
    rows = {row['step']: row['moments/images'] for row in read_rows(tmp_path / 'metrics.jsonl')}
    assert rows == {2: 48, 4: 112, 5: 160}


def test_progress_is_a_plain_line_off_a_terminal(capsys):
    progress = Progress('train x', 0, 10)
    progress.update(1, 'loss 3')
    progress.update(2, 'too soon after the first')
    progress.update(10)
    progress.close()
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith('train x: step 1 of 10, loss 3')
    assert last.startswith('train x: step 10 of 10')


def test_quiet_progress_says_nothing(capsys):
    progress = Progress('train x', 0, 1, quiet=True)
    progress.update(1)
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('end', ['{"step": 3, "lo', '3', '[1]', '{"step": 2}\n', '\x00\x00\x00', ''])
def test_what_a_crash_leaves_at_the_end_of_a_file_costs_no_whole_row(tmp_path, end):
    path = tmp_path / 'rows.jsonl'
    path.write_text('{"step": 1}\n{"step": 2}\n' + end)
    assert read_rows(path) == [{'step': 1}, {'step': 2}]
    append_line(path, '{"step": 9}')
    assert read_rows(path) == [{'step': 1}, {'step': 2}, {'step': 9}]
