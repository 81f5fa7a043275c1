"""Stages of a run: what each sees, how it goes on from the one before, and what is refused before the first begins."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from genbench import cli, families
from genbench.data import pipeline
from genbench.data.spec import DataSpec, resize
from genbench.errors import UserError
from genbench.evaluation import draw, harness
from genbench.families.base import register
from genbench.families.stages import Stage, at, images, spans
from genbench.studies import costs
from genbench.training import beginnings, dry_run, replay, runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.prepared import prepare
from tests.training import growing
from tests.training.growing import BOUNDARY, LARGE, SMALL, STEPS


@functools.cache
def killed_on(devices):
    """What `growing` says of runs on so many devices."""
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-m', 'tests.training.growing', str(devices)]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])[str(devices)]


@pytest.mark.parametrize('devices', [1, 2])
def test_a_run_killed_at_between_and_within_stages_equals_an_unbroken_one(devices):
    codes, killed, unbroken, counts = killed_on(devices)
    assert codes == [-9, -9, -9, 0, 0]
    assert counts == [devices, devices]
    assert killed == unbroken


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of an unbroken run with a checkpoint of every step."""
    folder = tmp_path_factory.mktemp('staged') / 'run'
    train(growing.config(), folder, quiet=True)
    return folder


@pytest.fixture(scope='module')
def states(run):
    """{step: the state of its checkpoint}."""
    opened = runs.open_run(run)
    return {step: opened.restore(step)[1] for step in range(1, STEPS + 1)}


def shrunk(images):
    """Pixels at the centre of their bins, averaged in float64 over 2×2, and put into bins again."""
    x = 2 * (images.astype(np.float64) + 0.5) / 17 - 1
    x = np.mean([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
    return np.floor((x + 1) * 17 / 2 + 1e-9).astype(int)


def test_images_are_averaged_and_put_into_bins_again(digits):
    small = resize(digits[2].images, (4, 4, 1))
    np.testing.assert_array_equal(small, shrunk(digits[2].images))
    assert small.dtype == np.uint8
    wide = np.full((1, 256, 256, 1), 2**16 - 1, np.int32)  # whose sum needs all 32 bits
    assert resize(wide, (1, 1, 1)).item() == 2**16 - 1


def test_each_step_sees_the_next_images_of_the_stages_shape(states, run, digits):
    order, position = pipeline.Order(len(digits[1]), seed=0), 0
    for step, state in states.items():
        size = SMALL if step <= BOUNDARY else LARGE
        batch = digits[1].images[order.indices(position, size)]
        seen = shrunk(batch).sum() if step <= BOUNDARY else batch.sum(dtype=int)
        assert state['aux']['line']['seen'] == seen
        position += size
    told = [row['images_seen'] for row in read_rows(run / 'metrics.jsonl')]
    assert told == [16, 32, 48, 56, 64, 72]
    assert json.loads((run / 'summary.json').read_text())['images_seen'] == 72


def test_the_learning_rate_is_the_stages_and_falls_over_its_steps(states):
    rates = [0.5, 0.5 * 2 / 3, 0.5 / 3, 1, 2 / 3, 1 / 3]
    lines = [float(state['params']['line']['values'][0]) for state in states.values()]
    np.testing.assert_allclose(lines, -np.cumsum(rates), rtol=1e-6)


def power(values, width=0.1):
    """The average over steps 1 … t with weights that integrate τ^γ over each step."""
    gamma = next(g for g in np.linspace(0, 20, 2_000_001) if (g + 1) / (g + 2) ** 2 / (g + 3) <= width**2)
    edges = (np.arange(len(values) + 1) / len(values)) ** (gamma + 1)
    return np.tensordot(np.diff(edges), np.asarray(values), 1)


def ema(values, start):
    for step, value in enumerate(values, 1):
        decay = min(0.999, (1 + step) / (10 + step))
        start = decay * start + (1 - decay) * value
    return start


def test_an_average_goes_on_where_its_network_does_and_begins_anew_where_it_grows(states):
    lines = [np.asarray(state['params']['line']['values']) for state in states.values()]
    pixels = [np.asarray(state['params']['pixels']['values']) for state in states.values()]
    last, grown = states[STEPS]['averages'], pixels[BOUNDARY - 1].repeat(2, 0).repeat(2, 1)
    wanted = {
        'ema': {'line': ema(lines, 0 * lines[0]), 'pixels': ema(pixels[BOUNDARY:], grown)},
        'power_0.1': {'line': power(lines), 'pixels': power(pixels[BOUNDARY:])},
    }
    for average, networks in wanted.items():
        for name, values in networks.items():
            np.testing.assert_allclose(last[average][name]['values'], values, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('step', [BOUNDARY, STEPS])
def test_an_average_of_any_width_is_made_of_the_snapshots_of_its_stages(run, states, step):
    opened = runs.open_run(run)
    _, made = opened.networks(step, opened.restore(step)[1], 'power:0.1')
    for name, tree in states[step]['averages']['power_0.1'].items():
        np.testing.assert_allclose(made['params'][name]['values'], tree['values'], rtol=1e-4, atol=1e-6)


def test_too_few_snapshots_of_a_stage_are_said(run):
    opened = runs.open_run(run)
    with pytest.raises(UserError, match=f'1 snapshots after step {BOUNDARY}, where this average begins, up to step 4'):
        opened.networks(4, opened.restore(4)[1], 'power:0.1')


@pytest.mark.parametrize(('step', 'size'), [(BOUNDARY, 4), (STEPS, 8)])
def test_a_checkpoint_of_any_stage_is_scored_at_its_shape(run, states, digits, step, size):
    rows = {row['metric']: row for row in harness.evaluate(run, ['evaluation.average=current'], step=step, quiet=True)}
    test = shrunk(digits[2].images) if size == 4 else digits[2].images.astype(int)
    logits = np.asarray(states[step]['params']['pixels']['values'], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nats = np.take_along_axis(log_p[None], test[..., None], -1).sum((1, 2, 3, 4))
    assert rows['bits_per_dim']['value'] == pytest.approx(-nats.mean() / np.log(2) / size**2, rel=1e-5)
    assert rows['fd_train']['value'] > 0
    told = '4×4, means over areas rounded to levels' if size == 4 else None
    scored = rows['fd_train']['protocol']
    assert [said.get('resized') for said in (rows['bits_per_dim']['protocol'], scored, scored['reference'])] == [
        told
    ] * 3
    assert json.loads((run / 'exploration' / 'exploration.json').read_text())['shape'] == [size, size, 1]


@pytest.mark.parametrize(('step', 'size'), [(BOUNDARY, 4), (None, 8)])
def test_a_checkpoint_of_any_stage_is_sampled(run, tmp_path, step, size):
    draw.draw_to_file(run, tmp_path / 'x.npz', count=3, sampler='', seed=0, given=(), step=step)
    assert np.load(tmp_path / 'x.npz')['images'].shape == (3, size, size, 1)


@pytest.mark.parametrize('step', [BOUNDARY - 1, BOUNDARY])
def test_a_step_of_any_stage_is_replayed(run, digits, step):
    lines = list(replay.replay(run, step))
    assert sum(line.startswith('images') for line in lines) == 1
    first = pipeline.Order(len(digits[1]), seed=0).indices(step * SMALL, 8)
    assert f'images {", ".join(map(str, first))}, …' in lines[1]
    assert lines[-1] == 'pixels: finite, applied'
    loss = read_rows(run / 'metrics.jsonl')[step]['pixels/loss']
    assert f'pixels/loss {loss:.6g}' in lines[-2]


def test_a_debugged_run_is_the_same(run, tmp_path):
    again = train(growing.config(), tmp_path / 'run', quiet=True, debug=True)
    assert again.summary['state_sha256'] == json.loads((run / 'summary.json').read_text())['state_sha256']


def test_a_dry_run_says_the_stages():
    said = '\n'.join(dry_run.describe(growing.config()))
    assert 'stage small: steps 0 to 2, images of 4×4×1\nbatch: 16 images, 16 per device' in said
    assert 'stage large: steps 3 to 5, images of 8×8×1\nbatch: 8 images, 8 per device' in said
    assert said.count('compiled step of pixels') == 2


def test_costs_are_what_training_counts_and_know_the_batches_of_stages(run):
    cost = costs._measure(costs.Request(growing.config()))
    assert cost.flops(STEPS) == pytest.approx(
        json.loads((run / 'summary.json').read_text())['training_flops'], rel=1e-9
    )
    assert [cost.images(steps) for steps in (2, 3, 5)] == [32, 48, 64]
    assert cost.steps_for(71, cost.images) == 5


def test_the_best_checkpoints_are_chosen_in_each_stage(tmp_path):
    kept = ('checkpoint.keep=1', 'checkpoint.keep_best=1')
    train(growing.config(*kept), tmp_path, quiet=True)
    losses = [row['pixels/loss'] for row in read_rows(tmp_path / 'metrics.jsonl')]
    best = {1 + int(np.argmin(losses[:BOUNDARY])), BOUNDARY + 1 + int(np.argmin(losses[BOUNDARY:])), STEPS}
    assert {int(path.name) for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()} == best


def staged(monkeypatch, *stages):
    monkeypatch.setattr(growing.Grown, 'stages', stages)


SHORT = Stage('a', until=3)


@pytest.mark.parametrize(
    ('stages', 'words'),
    [
        ((), 'grown has no stage'),
        ((Stage('a'), Stage('b')), "Stage 'a' has no end, but 'b' comes after it"),
        ((SHORT, Stage('a')), "Two stages have the name 'a'"),
        ((SHORT, Stage('b', until=2), Stage('c')), "Stage 'b' is until step 2 and begins at step 3"),
        ((SHORT, Stage('b', images=0), Stage('c')), "Stage 'b' is 0 images long and begins at step 3"),
        ((Stage('a', until=3, images=9), Stage('b')), "Stage 'a' has both until and images"),
        ((SHORT, Stage('b', until=5)), "The last stage, 'b', ends at step 5, but the run at step 6"),
        ((SHORT, Stage('b', batch_size=0)), "Stage 'b' has batches of 0 images"),
        ((SHORT, Stage('b', shape=(3, 4))), "Stage 'b': Images of 3×4 cannot be made from digits: .* divide its 8×8"),
        ((SHORT, Stage('b', shape=(16, 16))), "Stage 'b': Images of 16×16 cannot be made"),
        ((SHORT, Stage('b', optimizer={'rate': 1.0})), "Stage 'b': There is no config key 'optimizer.rate'"),
        ((SHORT, Stage('b', optimizer={'learning_rate': -1.0})), "Stage 'b': optimizer.learning_rate"),
        ((SHORT, Stage('b', optimizer={'name': 'adan'})), "Stage 'b': There is no optimizer 'adan'"),
    ],
)
def test_stages_that_cannot_be_are_refused_at_the_start(monkeypatch, tmp_path, stages, words):
    staged(monkeypatch, *stages)
    with pytest.raises(UserError, match=words):
        train(growing.config(), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_a_later_stage_that_micro_batches_do_not_divide_ends_in_one_line(monkeypatch, tmp_path, config_file, capfd):
    staged(monkeypatch, SHORT, Stage('b', batch_size=6))
    path = config_file(growing.config('train.accumulate=4'))
    assert cli.main(['train', f'--config={path}', f'--workdir={tmp_path / "run"}']) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("genbench: Stage 'b': train.accumulate (4) does not divide train.batch_size (6)")


def test_a_later_stage_whose_batch_the_devices_do_not_divide_is_refused(monkeypatch, digits):
    staged(monkeypatch, SHORT, Stage('b', batch_size=15))
    two = types.SimpleNamespace(shape={'data': 2, 'fsdp': 1})
    with pytest.raises(UserError, match="Stage 'b': train.batch_size is 15, which is not divisible by 2 devices"):
        beginnings.check(growing.Grown(growing.config(), digits[0]), two)


@register('grown_unet')
class GrownUNet(families.get('flow_matching')):
    stages = (Stage('small', until=2, shape=(2, 2)), Stage('large'))


@register('stiff')
class Stiff(growing.Grown):
    """Its networks are built for the data's shape, whatever that of the stage is."""

    stages = (Stage('small', until=2, shape=(4, 4)), Stage('large'))

    def networks(self, rngs):
        return {'pixels': growing.Table((8, 8, 1, self.spec.levels)), 'line': growing.Table(1)}


def test_a_shape_that_the_networks_cannot_take_is_refused_at_the_start(tiny, tmp_path):
    with pytest.raises(UserError, match="Stage 'small': A network with 3 resolutions .* these are 2×2"):
        train(tiny('grown_unet', 'network.multipliers=1,2,2'), tmp_path / 'run', quiet=True)
    config = growing.config()
    with config.unlocked():
        config.family.name = 'stiff'
    with pytest.raises(UserError, match=r"Stage 'small': its networks cannot take images of 4×4 \(.*"):
        train(config, tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['flow_matching', 'gan'])
def test_families_that_ship_follow_the_shape_of_a_stage(tiny, name):
    """Traced, and by their parts, as they have no such stages of their own."""
    cls = families.get(name)
    staged = type(cls.__name__, (cls,), {'stages': (Stage('small', until=2, shape=(4, 4)), Stage('large'))})
    ready = prepare(tiny(name), on_noise=True)
    family = staged(ready.family.config, ready.family.spec)
    ready = dataclasses.replace(ready, family=family)
    beginnings.trace(ready)
    assert family.at('small').spec.shape == (4, 4, 1)


def test_images_are_counted_over_stages(tiny, digits):
    family = growing.Grown(growing.config(), digits[0])
    seen, found = 0, [images(family, 0)]
    for step in range(STEPS):
        seen += family.at('small' if step < BOUNDARY else 'large').config.train.batch_size
        found.append(images(family, step + 1))
        assert found[-1] == seen
    assert [(span.first, span.stop) for span in spans(family.at('large'))] == [(0, 3), (3, 6)]
    assert at(family.at('large'), 'small').spec == DataSpec('digits', (4, 4, 1), 17, 10)
