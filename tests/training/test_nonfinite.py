"""Updates that stay not finite stop the run, which says what they saw and how to look again."""

import json
import re

import jax
import jax.numpy as jnp
import pytest
import shipped
from flax import nnx

from genbench import cli, rng
from genbench.data import pipeline
from genbench.errors import UserError
from genbench.families.base import Family, Samples, Update, register
from genbench.training import guards, lending, placement
from genbench.training import state as states
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.prepared import prepare
from genbench.training.replay import replay

FIRST = 5  # the first step whose update is not finite


class Weights(nnx.Module):
    def __init__(self):
        self.steady = nnx.Param(jnp.ones(3))
        self.brittle = nnx.Param(jnp.ones(2))


@register('brittle')
class Brittle(Family):
    """Its second update has the loss √(FIRST − 1/2 − step), whose gradient is not a number from step FIRST on."""

    @classmethod
    def defaults(cls):
        return {'family': {**super().defaults()['family'], 'wide': False, 'strays': False}}

    def networks(self, rngs):
        return {'first': Weights(), 'second': Weights()}

    @property
    def updates(self):
        return (Update('first', ('first',), self.steady), Update('second', ('second',), self.brittle))

    def steady(self, networks, batch, key, step):
        value = networks['first'].steady[...].sum() * batch['image'].mean() + jax.random.normal(key)
        return value, {'loss': value}

    def brittle(self, networks, batch, key, step):
        value = (networks['second'].brittle[...] * jnp.sqrt(FIRST - 0.5 - step)).sum()
        if self.config.family.wide:
            value = value[None]
        return value, {'loss': value}

    def sample(self, networks, keys, given, sampler):
        shape = self.spec.shape[:2] if self.config.family.strays else self.spec.shape
        return Samples(jnp.zeros((len(keys), *shape), jnp.int32), 1)


@register('shrinking')
class Shrinking(Brittle):
    """It reports a share that grows by an eighth in each step."""

    stops = {'shrunk': 'Widen it.'}

    @property
    def updates(self):
        return (Update('first', ('first',), self.steady),)

    def steady(self, networks, batch, key, step):
        value, scalars = super().steady(networks, batch, key, step)
        return value, {**scalars, 'shrunk': step / 8, 'grown': 1.0}


def options(*more):
    return ('train.num_steps=40', 'train.skip_limit=4', 'train.log_every=16', 'checkpoint.every=3', *more)


@pytest.fixture
def stopped(tiny, tmp_path):
    """(the folder of a stopped run, its error, what it wrote down)."""
    with pytest.raises(UserError) as error:
        train(tiny('brittle', *options()), tmp_path, quiet=True)
    return tmp_path, str(error.value), json.loads((tmp_path / 'nonfinite.json').read_text())


def test_the_run_stops_one_step_after_the_limit_and_not_at_the_next_row(stopped):
    folder, message, record = stopped
    assert (record['first_step'], record['updates_in_a_row']) == (FIRST, 5)
    assert f'stopped at step {FIRST + 5} ' in message
    assert read_rows(folder / 'metrics.jsonl')[-1]['step'] == FIRST + 5


def test_the_record_holds_the_batch_and_the_key(stopped, digits):
    _, _, record = stopped
    assert record['batch_indices'] == pipeline.Order(len(digits[1]), 0).indices(FIRST * 32, 32).tolist()
    key = rng.numbered(rng.root(0, 'training'), FIRST)
    assert record['key']['data'] == jax.random.key_data(key).tolist()


def test_the_record_holds_loss_and_norm_of_every_update_of_the_streak(stopped):
    scalars = stopped[2]['scalars']
    assert list(scalars) == [str(step) for step in range(FIRST, FIRST + 5)]
    for row in scalars.values():
        assert row['second/loss'] == row['second/gradient_norm'] == 'nan'
        assert isinstance(row['first/loss'], float) and row['first/gradient_norm'] > 0


def test_the_printed_command_replays_the_step(stopped, capsys):
    folder, message, record = stopped
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob('*'))
    command = record['replay']
    assert command in message
    program, *words = command.split()
    assert program == 'genbench' and cli.main(words) == 0
    said = capsys.readouterr().out
    assert f'from checkpoint 3, 2 steps to step {FIRST}' in said
    assert 'second: gradient: 1 arrays are not finite; the first is second/brittle' in said
    assert 'in sqrt' in said and 'test_nonfinite.py' in said and 'second: not finite, skipped' in said
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob('*')) == before


def test_a_replay_meets_what_training_met(stopped):
    """The first update is finite: its loss at that step is the one in the record, from a checkpoint and the start."""
    folder, _, record = stopped
    wanted = record['scalars'][str(FIRST)]['first/loss']
    for step in (3, 6, 9):
        (folder / 'checkpoints' / str(step)).rename(folder / f'{step}')
    lines = list(replay(folder, FIRST))
    assert lines[0].startswith('from the start, 5 steps')
    (found,) = re.findall(r'first/loss ([-.\d]+)', '\n'.join(lines))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_step_beyond_the_run_is_not_replayed(stopped):
    with pytest.raises(UserError, match='has the steps 0 to 39'):
        next(replay(stopped[0], 40))


def test_a_share_above_one_half_stops_the_run_and_says_what_to_change(tiny, tmp_path):
    """The means of two steps are 1/16, 5/16 and 9/16."""
    words = 'first/shrunk is 0.56, more than 0.5, so training stopped at step 6. Widen it.'
    with pytest.raises(UserError, match=re.escape(words)):
        train(tiny('shrinking', 'train.num_steps=40', 'train.log_every=2'), tmp_path, quiet=True)
    assert [row['step'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [2, 4, 6]


def test_to_debug_stops_at_the_operation(tiny, tmp_path):
    with pytest.raises(FloatingPointError, match='nan') as error:
        train(tiny('brittle', *options()), tmp_path, quiet=True, debug=True)
    assert any(entry.path.name == 'test_nonfinite.py' and entry.name == 'brittle' for entry in error.traceback)


@pytest.mark.parametrize(('option', 'words'), [
    ('family.wide=true', r'update second: its loss should be a scalar, not shape \(1,\)'),
    ('family.strays=true', r'samples should be integers \(2, 8, 8, 1\), not \(2, 8, 8\)'),
])  # fmt: skip
def test_shapes_are_checked_first(tiny, tmp_path, option, words):
    with pytest.raises(UserError, match=words):
        train(tiny('brittle', *options(option)), tmp_path, quiet=True, debug=True)
    assert read_rows(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize('name', shipped.NAMES)
def test_shipped_families_have_the_shapes_that_are_checked(tiny, digits, lenders, name):
    loans = {key: lending.promise(tiny(lender), digits[0]) for key, lender in lenders(name).items()}
    blueprint = states.Blueprint(prepare(tiny(name), loans).family)
    lent = {key: loan.state for key, loan in loans.items()}
    batch = {'image': jnp.zeros((4, 8, 8, 1), jnp.int32), 'label': jnp.zeros(4, jnp.int32)}
    guards.check_shapes(blueprint, {**placement.abstract_state(blueprint), 'lent': lent}, batch)


def test_what_is_finite_trains_the_same_run_while_it_is_debugged(tiny, tmp_path):
    ends = [train(tiny('gaussian', 'train.num_steps=2'), tmp_path / str(debug), quiet=True, debug=debug)
            for debug in (False, True)]  # fmt: skip
    assert ends[0].summary['state_sha256'] == ends[1].summary['state_sha256']
