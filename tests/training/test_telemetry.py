"""What a run tells of itself adds up, and says where it does not know."""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import pytest

from genbench import families, flops
from genbench.evaluation import harness
from genbench.training import telemetry
from genbench.training.loop import train
from genbench.training.metrics import read_rows


@pytest.mark.parametrize(('kind', 'dtype', 'teraflops'), [
    ('NVIDIA H100 80GB HBM3', 'bfloat16', 989),
    ('NVIDIA H100 PCIe', 'bfloat16', 756),
    ('NVIDIA H200', 'float32', 495),
    ('NVIDIA A100-SXM4-40GB', 'bfloat16', 312),
    ('NVIDIA A100 80GB PCIe', 'float32', 156),
    ('Tesla V100-SXM2-16GB', 'float32', 15.7),
    ('TPU v4', 'bfloat16', 275),
    ('TPU v5 lite', 'bfloat16', 197),
    ('TPU v5', 'bfloat16', 459),
    ('TPU v6 lite', 'bfloat16', 918),
])  # fmt: skip
def test_peaks_by_the_names_that_jax_gives(kind, dtype, teraflops):
    assert telemetry.peak_flops(kind, dtype) == teraflops * 1e12


def test_an_unknown_device_has_no_peak():
    assert telemetry.peak_flops('cpu') is None
    assert telemetry.peak_flops('NVIDIA GeForce GTX 1080') is None


def test_the_ledger_adds_up_over_starts():
    ledger = telemetry.Ledger({'step': 10.0, 'other': 5.0}, time.monotonic() - 2)
    ledger.add('init', 0.5)
    with ledger.spent('step'):
        time.sleep(0.02)
    seconds = ledger.seconds()
    assert set(seconds) == set(telemetry.PARTS)
    assert 10.02 <= seconds['step'] < 10.5
    assert sum(seconds.values()) == pytest.approx(17.02, abs=0.5)
    assert seconds['other'] == pytest.approx(5 + 2 - 0.5, abs=0.1)


def test_mfu_is_the_share_of_the_peak_while_steps_run():
    ledger = telemetry.Ledger({}, time.monotonic())
    meter = telemetry.Meter(ledger, batch_size=10, peak=1e12)
    meter.start(step=100, flops=7e12)
    ledger.add('step', 1.5)
    ledger.add('data_wait', 0.5)
    ledger.add('checkpoint', 100)  # is no part of a step
    found = meter.read(step=104, flops=7e12 + 1e12 * jax.device_count())
    assert found['speed/mfu'] == 0.5
    assert found['speed/step_seconds'] == 0.5
    assert found['time/data_wait'] == 0.25


def test_lost_work_is_what_the_rows_past_the_restored_step_show():
    rows = [{'step': step, 'wall_time': 2.0 * step} for step in (10, 20, 30)]
    assert telemetry.lost_work(rows, 20) == {'lost_steps': 10, 'lost_seconds': 20.0}
    assert telemetry.lost_work(rows, 0) == {'lost_steps': 30, 'lost_seconds': 60.0}
    assert telemetry.lost_work(rows, 30) == telemetry.lost_work([], 0) == {'lost_steps': 0, 'lost_seconds': 0.0}


@pytest.fixture(scope='module')
def resumed(tiny, tmp_path_factory):
    """A run in two starts, the second of which does steps 5 and 6 again: (folder, summary, seconds of the second)."""
    folder = tmp_path_factory.mktemp('resumed')
    train(tiny('gaussian', 'checkpoint.every=4', 'train.num_steps=6'), folder, quiet=True)
    (folder / 'checkpoints' / '6').rename(folder / 'moved')
    began = time.monotonic()
    outcome = train(tiny('gaussian', 'checkpoint.every=4', 'train.num_steps=20'), folder, quiet=True, profile=(8, 10))
    return folder, outcome.summary, time.monotonic() - began


def test_the_parts_of_a_run_make_up_its_time(resumed):
    folder, summary, second = resumed
    seconds = summary['seconds']
    assert set(seconds) == {*telemetry.PARTS, 'lost'}
    assert not [part for part in ('init', 'step', 'checkpoint', 'evaluation', 'lost') if seconds[part] <= 0], seconds
    # Less than rounding leaves: resident images, and a program that came from the cache while networks were made.
    assert min(seconds['data_wait'], seconds['compile']) >= 0
    first = [row for row in read_rows(folder / 'metrics.jsonl') if row['step'] == 4][0]
    before = sum(value for name, value in first.items() if name.startswith('seconds/'))
    assert sum(seconds.values()) - seconds['lost'] == pytest.approx(before + second, rel=0.05, abs=0.1)
    # The second start lasts a second, of which imports take a part: two thirds, or 0.82 beside other programs.
    assert seconds['other'] - first['seconds/other'] < 0.9 * second
    assert summary['goodput'] == pytest.approx(seconds['step'] / sum(seconds.values()), abs=1e-3)


def test_work_that_was_done_twice_is_counted(resumed):
    folder, summary, _ = resumed
    assert (summary['starts'], summary['lost_steps']) == (2, 2)
    starts = [json.loads(line) for line in (folder / 'starts.jsonl').read_text().splitlines()]
    assert [row['step'] for row in starts] == [0, 4]
    assert starts[1]['lost_seconds'] == summary['seconds']['lost']


def test_a_cpu_has_no_known_peak_and_the_run_says_so(resumed):
    _, summary, _ = resumed
    assert summary['device'] == 'cpu' and summary['mfu'] is None
    assert 0 < summary['first_step_seconds'] < 120
    assert summary['step_seconds'] > 0


def test_rows_tell_speed_and_shares(resumed):
    rows = read_rows(resumed[0] / 'metrics.jsonl')
    assert [row['step'] for row in rows] == list(range(1, 21))
    for name in ('seconds/step', 'seconds/compile', 'seconds/init'):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    assert all(0 <= row['time/data_wait'] <= 1 and row['speed/step_seconds'] > 0 for row in rows)


def test_a_trace_is_written_for_the_steps_that_were_asked_for(resumed):
    traces = list((resumed[0] / 'profile').rglob('*.xplane.pb'))
    assert len(traces) == 1 and traces[0].stat().st_size > 1000


def test_a_trace_of_steps_that_are_not_done_is_missed(tiny, tmp_path):
    with pytest.warns(UserWarning, match='No trace was written.*--profile=8:10'):
        train(tiny('gaussian'), tmp_path, quiet=True, profile=(8, 10))


@pytest.mark.filterwarnings('ignore:The FLOPs of this program')
def test_a_run_with_one_program_whose_operations_are_unknown_has_no_number_of_them(tiny, tmp_path, monkeypatch):
    """The initialisation and the critic's own steps can be counted, and would pass for all of the run."""
    gan = families.get('gan')

    class Hidden(gan):
        @property
        def updates(self):
            def hide(update):
                def loss(*arguments):
                    value, *rest = update.loss(*arguments)
                    hidden = 0 * jnp.linalg.svd(jnp.eye(2), compute_uv=False).sum()
                    return value + hidden, *rest

                return dataclasses.replace(update, loss=loss) if update.name == 'generator' else update

            return [hide(update) for update in super().updates]

    monkeypatch.setattr(families, 'get', lambda name: Hidden if name == 'gan' else gan)
    config = tiny('gan', 'family.critic_steps=2', 'evaluation.metrics=speed')
    summary = train(config, tmp_path / 'run', quiet=True).summary
    rows = read_rows(tmp_path / 'run' / 'metrics.jsonl')
    assert [row['train/flops'] for row in rows] == [None] * 4
    assert (summary['training_flops'], summary['training_flops_counted'], summary['mfu']) == (None, None, None)
    measured = [row['metric'] for row in harness.evaluate(tmp_path / 'run', quiet=True)]
    assert 'training_seconds' in measured and 'training_flops' not in measured


def test_what_debugging_does_not_count_is_no_number(tiny, tmp_path):
    assert train(tiny('gaussian'), tmp_path, quiet=True, debug=True).summary['training_flops'] is None


def test_mfu_is_left_out_where_operations_are_unknown():
    meter = telemetry.Meter(telemetry.Ledger({}, time.monotonic()), batch_size=10, peak=1e12)
    meter.start(step=0, flops=1e12)
    assert 'speed/mfu' not in meter.read(step=4, flops=None)


def test_operations_counted_under_another_definition_are_neither_added_to_nor_reported(tiny, tmp_path):
    options = ('checkpoint.every=2', 'evaluation.metrics=speed')
    summary = train(tiny('gaussian', *options), tmp_path, quiet=True).summary
    assert summary['training_flops'] > 0 and summary['training_flops_counted'] == flops.DEFINITION
    (row,) = [row for row in harness.evaluate(tmp_path, quiet=True) if row['metric'] == 'training_flops']
    assert row['protocol']['counted'] == flops.DEFINITION
    starts = [json.loads(line) for line in (tmp_path / 'starts.jsonl').read_text().splitlines()]
    old = [{key: value for key, value in start.items() if key != 'flops'} for start in starts]  # as versions before
    (tmp_path / 'starts.jsonl').write_text(''.join(json.dumps(start) + '\n' for start in old))
    (tmp_path / 'results.jsonl').unlink()
    assert 'training_flops' not in [row['metric'] for row in harness.evaluate(tmp_path, quiet=True)]
    longer = train(tiny('gaussian', *options, 'train.num_steps=6'), tmp_path, quiet=True).summary
    assert (longer['training_flops'], longer['training_flops_counted']) == (None, None)
    assert read_rows(tmp_path / 'metrics.jsonl')[-1]['train/flops'] is None


@pytest.mark.parametrize(('starts', 'found'), [
    ([], None),
    ([(0, 'new'), (4, 'new')], 'new'),
    ([(0, None), (4, 'new')], None),
    ([(0, 'new'), (4, None)], None),
    ([(0, None), (4, None), (0, 'new')], 'new'),
    ([(0, 'other'), (4, 'new')], None),
])  # fmt: skip
def test_a_definition_is_that_of_every_start_since_the_one_from_step_0(starts, found):
    rows = [{'step': step, **({'flops': said} if said else {})} for step, said in starts]
    assert telemetry.definition(rows) == found
