"""The loop trains any family: exactly N updates, in order, resumable bit for bit."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped
from flax import nnx

from genbench.data import pipeline
from genbench.errors import UserError
from genbench.evaluation import draw, harness
from genbench.families.base import Average, Family, Likelihood, Samples, Stage, Update, register
from genbench.networks import decoders
from genbench.training import runs, sampling
from genbench.training import step as step_module
from genbench.training.loop import train
from genbench.training.metrics import read_rows
from genbench.training.prepared import prepare

ONE_A_STEP = ('optimizer.name=sgd', 'optimizer.learning_rate=1', 'optimizer.b1=0', 'optimizer.clip_norm=0')


# A whole family: one categorical distribution for each pixel.
class Logits(nnx.Module):
    def __init__(self, shape):
        self.values = nnx.Param(jnp.zeros(shape))


@register('histograms')
class Histograms(Family):
    def networks(self, rngs):
        return {'pixels': Logits((*self.spec.shape, self.spec.levels))}

    @property
    def updates(self):
        return (Update('pixels', ('pixels',), self.loss),)

    def loss(self, networks, batch, key, step):
        loss = -self.log_prob(networks, batch['image'], None, None).mean()
        return loss, {'loss': loss}

    def log_prob(self, networks, images, given, keys):
        logits = jnp.broadcast_to(networks['pixels'].values[...], (*images.shape, self.spec.levels))
        return decoders.categorical(logits, images).sum((1, 2, 3))

    def sample(self, networks, keys, given, sampler):
        return Samples(jax.vmap(lambda key: jax.random.categorical(key, networks['pixels'].values[...]))(keys), 1)

    @property
    def likelihoods(self):
        return (Likelihood('histograms', 'exact', self.log_prob, {'dequantisation': 'none'}),)


@register('mute_histograms')
class MuteHistograms(Histograms):
    likelihoods = ()


# Families whose weights can be foretold: with plain SGD at rate 1, a loss `w` moves w by −1 at each update.
class Line(nnx.Module):
    def __init__(self, width=1):
        self.w = nnx.Param(jnp.zeros(width))
        self.calls = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.first_batch = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self):
        self.calls[...] += 1
        return self.w[...].sum()


class Toy(Family):
    def networks(self, rngs):
        return {'line': Line()}

    def loss(self, networks, batch, key, step):
        value = networks['line']()
        return value, {'loss': value}

    @property
    def updates(self):
        return (Update('line', ('line',), self.loss),)

    def sample(self, networks, keys, given, sampler):
        return Samples(jnp.zeros((len(keys), *self.spec.shape), jnp.int32), 1)


@register('ramp')
class Ramp(Toy):
    """Its line falls by one a step, and remembers the first batch."""

    def initialise(self, networks, batch, key):
        networks['line'].first_batch[...] = batch['image'].sum()


@register('chain')
class Chain(Toy):
    """'second' follows what 'first' has just become, every other step; 'frozen' takes part in the loss only."""

    def networks(self, rngs):
        return {'first': Line(), 'second': Line(), 'frozen': Line()}

    @property
    def updates(self):
        return (
            Update('first', ('first',), lambda networks, *_: (networks['first']() + networks['frozen'](), {})),
            Update(
                'second', ('second',), lambda networks, *_: (networks['second']() * networks['first'](), {}), every=2
            ),
        )


@register('poisoned')
class Poisoned(Toy):
    """Its loss, or the gradient of its loss, is not a number at one step, or from that step on."""

    @classmethod
    def defaults(cls):
        return {'family': {**super().defaults()['family'], 'poison': 'loss', 'lasting': False}}

    def loss(self, networks, batch, key, step):
        options, value = self.config.family, networks['line']()
        bad = step >= 2 if options.lasting else step == 2
        if options.poison == 'loss':
            return value + jnp.where(bad, jnp.nan, 0.0), {'loss': value}
        hidden = jnp.where(bad, value - jax.lax.stop_gradient(value), 1.0)
        return value + jnp.sqrt(hidden), {'loss': value}


@register('steep')
class Steep(Toy):
    """Its gradient has the norm 10 at one step, and 1 at all others."""

    def loss(self, networks, batch, key, step):
        value = networks['line']()
        return jnp.where(step == 2, 10.0, 1.0) * value, {'loss': value}


@register('growing')
class Growing(Toy):
    """Two weights and one network for three steps, then four weights and another network beside them."""

    stages = (Stage('narrow', until=3), Stage('wide'))

    @property
    def wide(self):
        return self.span.stage.name == 'wide'

    def networks(self, rngs):
        return {'line': Line(4), 'extra': Line()} if self.wide else {'line': Line(2)}

    @property
    def updates(self):
        first = Update('line', ('line',), self.loss)
        return (first, Update('extra', ('extra',), lambda networks, *_: (networks['extra'](), {}))) * self.wide or (
            first,
        )

    def carry(self, old, new):
        new['line'].w[...] = jnp.concatenate([old['line'].w[...], jnp.full(2, 100.0)])


def final_state(folder, step=None):
    return jax.device_get(runs.open_run(folder).restore(step)[1])


def weight(state, network='line'):
    return state['params'][network]['w'][0]


@pytest.mark.parametrize(('family', 'kind'), [('histograms', 'exact'), ('mute_histograms', 'none')])
def test_a_family_of_one_class_trains_and_is_scored(tiny, tmp_path, family, kind):
    config = tiny(family, 'train.num_steps=30', 'optimizer.learning_rate=0.3', 'checkpoint.every=100')
    train(config, tmp_path, quiet=True)
    rows = {row['metric']: row for row in harness.evaluate(tmp_path, quiet=True)}
    bits = rows['bits_per_dim']
    assert rows['fd']['value'] > 0
    assert bits['kind'] == kind
    assert bits['value'] < 0.8 * np.log2(17) if kind == 'exact' else bits['value'] is None


def test_a_family_of_one_class_is_sampled(tiny, tmp_path):
    train(tiny('histograms'), tmp_path, quiet=True)
    draw.draw_to_file(tmp_path, tmp_path / 'x.npz', count=5, sampler='', seed=0, given=())
    assert np.load(tmp_path / 'x.npz')['images'].shape == (5, 8, 8, 1)


@pytest.mark.parametrize(
    ('family', 'overrides'),
    [
        *(pytest.param(name, (), marks=[pytest.mark.slow] * bool(shipped.borrows(name)), id=name)
          for name in shipped.NAMES),
        pytest.param('diffusion', shipped.BY_IMPORTANCE, id='by importance'),
    ],
)  # fmt: skip
def test_an_interrupted_run_equals_an_unbroken_one(tiny, tmp_path, on_loans, monkeypatch, family, overrides):
    config = tiny(family, *on_loans(family), *overrides)
    with monkeypatch.context() as patch:
        interrupt(patch, before_step=1)
        stopped = train(config, tmp_path / 'resumed', quiet=True)
    assert (stopped.complete, stopped.summary['step']) == (False, 2)
    resumed = train(config, tmp_path / 'resumed', quiet=True)
    unbroken = train(config, tmp_path / 'unbroken', quiet=True)
    assert not resumed.already
    assert resumed.summary['step'] == 4
    assert resumed.summary['state_sha256'] == unbroken.summary['state_sha256']


def interrupt(patch, before_step):
    """Send this process SIGTERM when it fetches the batch of a step; the step is still done."""
    fetch = pipeline.ResidentFeed.inputs

    def inputs(feed, step):
        if step == before_step:
            signal.raise_signal(signal.SIGTERM)
        return fetch(feed, step)

    patch.setattr(pipeline.ResidentFeed, 'inputs', inputs)


def test_steps_change_the_state(tiny, tmp_path):
    """Or equal hashes would mean nothing."""
    short, full = (train(tiny('ramp', f'train.num_steps={n}'), tmp_path / str(n), quiet=True) for n in (2, 4))
    assert short.summary['state_sha256'] != full.summary['state_sha256']


@pytest.mark.parametrize('steps', [1, 5])
def test_n_steps_are_n_updates(tiny, tmp_path, steps):
    train(tiny('ramp', f'train.num_steps={steps}', *ONE_A_STEP), tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert state['step'] == steps
    assert weight(state) == -steps


def test_a_checkpoint_called_k_holds_k_updates(tiny, tmp_path):
    train(tiny('ramp', 'checkpoint.every=2', *ONE_A_STEP), tmp_path, quiet=True)
    assert [weight(final_state(tmp_path, step)) for step in (2, 4)] == [-2, -4]


def test_a_complete_run_is_left_alone(tiny, tmp_path):
    config = tiny('ramp')
    train(config, tmp_path, quiet=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'checkpoints').rglob('*')}
    assert train(config, tmp_path, quiet=True).already
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'checkpoints').rglob('*')} == before


@pytest.mark.parametrize('warmup', [True, False])
def test_averages_follow_their_formula(tiny, tmp_path, monkeypatch, warmup):
    monkeypatch.setattr(Ramp, 'averages', (Average('ema', ('line',), 0.3, warmup),))
    train(tiny('ramp', 'train.num_steps=5', *ONE_A_STEP), tmp_path, quiet=True)
    expected = 0.0
    for step in range(1, 6):
        decay = min(0.3, (1 + step) / (10 + step)) if warmup else 0.3
        expected = decay * expected + (1 - decay) * -step
    assert final_state(tmp_path)['averages']['ema']['line']['w'][0] == pytest.approx(expected, rel=1e-6)


def test_updates_run_in_order_and_as_often_as_they_say(tiny, tmp_path):
    train(tiny('chain', 'train.num_steps=5', *ONE_A_STEP), tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert weight(state, 'first') == -5
    assert weight(state, 'second') == 1 + 3 + 5  # minus the first line after the updates of steps 0, 2 and 4


def test_frozen_networks_do_not_move(tiny, tmp_path):
    train(tiny('chain', *ONE_A_STEP), tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert weight(state, 'frozen') == 0
    assert 'frozen' not in state['averages']['ema']
    assert set(state['opt']) == {'first', 'second'}


def test_auxiliary_variables_are_kept_and_restored(tiny, tmp_path):
    for steps in (2, 5):
        train(tiny('ramp', f'train.num_steps={steps}'), tmp_path, quiet=True)
        assert final_state(tmp_path)['aux']['line']['calls'] == steps


def test_initialisation_sees_the_first_batch(tiny, tmp_path, digits):
    train(tiny('ramp'), tmp_path, quiet=True)
    train_split = digits[1]
    indices = pipeline.Order(len(train_split), seed=0).indices(0, 32)
    assert final_state(tmp_path)['aux']['line']['first_batch'] == train_split.images[indices].sum(dtype=int)


def test_a_stage_goes_on_from_the_one_before(tiny, tmp_path):
    train(tiny('growing', 'train.num_steps=5', *ONE_A_STEP), tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert state['step'] == 5
    assert state['params']['line']['w'].tolist() == [-5, -5, 98, 98]
    assert weight(state, 'extra') == -2


@pytest.mark.parametrize('stop', [2, 3, 4])
def test_a_run_resumes_across_the_boundary_of_stages(tiny, tmp_path, stop):
    short, full = (tiny('growing', f'train.num_steps={steps}') for steps in (stop, 6))
    train(short, tmp_path / 'resumed', quiet=True)
    resumed = train(full, tmp_path / 'resumed', quiet=True)
    unbroken = train(full, tmp_path / 'unbroken', quiet=True)
    assert resumed.summary['state_sha256'] == unbroken.summary['state_sha256']


@pytest.fixture(params=['conditional', 'selection'])
def taken(request, monkeypatch):
    """The two ways of leaving out an update: CPUs use the first, accelerators the second."""
    monkeypatch.setattr(step_module, '_on_cpu', lambda mesh: request.param == 'conditional')


@pytest.mark.usefixtures('taken')
@pytest.mark.parametrize('poison', ['loss', 'gradient'])
def test_an_update_that_is_not_finite_is_skipped_and_counted(tiny, tmp_path, poison):
    config = tiny('poisoned', f'family.poison={poison}', 'train.num_steps=5', *ONE_A_STEP)
    outcome = train(config, tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert weight(state) == -4
    assert state['aux']['line']['calls'] == 4
    assert state['skipped'] == {'total': 1, 'in_a_row': 0}
    assert outcome.summary['skipped_updates'] == 1
    assert [row['skipped/total'] for row in read_rows(tmp_path / 'metrics.jsonl')] == [0, 0, 1, 1, 1]


@pytest.mark.usefixtures('taken')
@pytest.mark.parametrize(('limit', 'end'), [(0, -14), (10, -14), (9, -4)])
def test_an_update_with_a_longer_gradient_than_the_limit_is_left_out(tiny, tmp_path, limit, end):
    train(tiny('steep', f'optimizer.skip_norm={limit}', 'train.num_steps=5', *ONE_A_STEP), tmp_path, quiet=True)
    state = final_state(tmp_path)
    assert weight(state) == end and state['skipped'] == {'total': 0, 'in_a_row': 0}
    told = [row.get('line/too_long') for row in read_rows(tmp_path / 'metrics.jsonl')]
    assert told == ([None] * 5 if not limit else [0, 0, float(limit < 10), 0, 0])


def test_updates_that_stay_not_finite_stop_the_run(tiny, tmp_path):
    config = tiny('poisoned', 'family.lasting=true', 'train.skip_limit=3', 'train.num_steps=50', *ONE_A_STEP)
    with pytest.raises(UserError, match='last 3 updates were not finite.*stopped at step 5 '):
        train(config, tmp_path, quiet=True)
    assert read_rows(tmp_path / 'metrics.jsonl')[-1]['step'] == 5


def test_a_short_run_that_learned_nothing_does_not_end_as_if_it_had(tiny, tmp_path):
    config = tiny('poisoned', 'family.lasting=true', 'train.num_steps=6', *ONE_A_STEP)
    with pytest.raises(UserError, match='last 3 updates were not finite'):
        train(config, tmp_path, quiet=True)


def test_a_split_that_is_not_there_is_noticed_before_the_training(tiny, tmp_path):
    with pytest.raises(UserError, match="no split 'tset'"):
        train(tiny('ramp', 'evaluation.split=tset'), tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('memory', [2**30, 0])
def test_captions_that_are_too_long_are_noticed_before_anything_is_written(memory, tiny, tmp_path):
    config = tiny('diffusion', "family.conditions=('caption:bytes4',)", f'data.resident_bytes={memory}')
    with pytest.raises(UserError, match='has .* bytes, and this model takes 4'):
        train(config, tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run').exists()


def test_the_summary_says_what_the_run_was(tiny, tmp_path):
    outcome = train(tiny('ramp'), tmp_path, quiet=True)
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary == outcome.summary
    assert (summary['complete'], summary['step'], summary['images_seen']) == (True, 4, 128)
    assert summary['parameters'] == {'line': 1}


def test_samples_over_training_leave_the_run_as_it_is_and_share_a_program(tiny, tmp_path, monkeypatch):
    made = []
    drawer = sampling.Drawer
    monkeypatch.setattr(sampling, 'Drawer', lambda *given: made.append(given) or drawer(*given))
    watched, plain = (
        train(tiny('histograms', 'train.num_steps=6', f'train.sample_every={every}'), tmp_path / str(every), quiet=True)
        for every in (2, 0)
    )
    assert watched.summary['state_sha256'] == plain.summary['state_sha256']
    names = sorted(path.name for path in (tmp_path / '2' / 'samples').glob('step_*.png'))
    assert names == ['step_0000002.png', 'step_0000004.png', 'step_0000006.png']
    assert len(made) == 2  # one a run


def test_a_run_trains_on_the_slice_that_the_config_names(tiny, digits):
    """A slice that there is not is refused by its name."""
    rows = prepare(tiny('histograms', 'data.train_split=train[40:72]')).feed.constants
    np.testing.assert_array_equal(rows['image'], digits[1].images[40:72])
    with pytest.raises(UserError, match="no split 'training'"):
        _ = prepare(tiny('histograms', 'data.train_split=training')).feed
