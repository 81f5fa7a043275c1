"""Accumulation and several steps in one call: other ways to the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config as configs
from genbench.errors import UserError
from genbench.families.base import Family, Samples, Update, register
from genbench.networks.constraints import Constrained
from genbench.training import runs
from genbench.training.loop import train
from genbench.training.metrics import read_rows


class Regressor(nnx.Module):
    def __init__(self, inputs, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.output = nnx.Linear(4 * inputs, 1, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.silu(self.conv(x)).reshape(len(x), -1))[:, 0]


@register('regression')
class Regression(Family):
    """Labels from images, without noise: a loss that is a mean over the batch."""

    def networks(self, rngs):
        return {'regressor': Regressor(self.spec.num_dims, rngs)}

    @property
    def updates(self):
        return (Update('regressor', ('regressor',), self.loss),)

    def loss(self, networks, batch, key, step):
        error = networks['regressor'](batch['image'] / 8.0 - 1) - batch['label'] / 9.0
        loss = jnp.square(error).mean()
        return loss, {'loss': loss, 'brightness': batch['image'].mean()}

    def sample(self, networks, keys, given, sampler):
        return Samples(jnp.zeros((len(keys), *self.spec.shape), jnp.int32), 1)


def trained(config, folder):
    train(config, folder, quiet=True)
    return jax.device_get(runs.open_run(folder).restore()[1]), read_rows(folder / 'metrics.jsonl')


@pytest.mark.parametrize('parts', [2, 4])
def test_accumulation_of_micro_batches_equals_one_batch(tiny, tmp_path, parts):
    options = ('train.num_steps=6', 'optimizer.name=sgd', 'optimizer.learning_rate=0.1')
    whole, rows = trained(tiny('regression', *options), tmp_path / 'whole')
    split, other = trained(tiny('regression', *options, f'train.accumulate={parts}'), tmp_path / 'split')
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole['params'], split['params'])
    for name in ('regressor/loss', 'regressor/brightness', 'regressor/gradient_norm'):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in other], rtol=1e-4)
    assert rows[0]['regressor/loss'] > 1.2 * rows[-1]['regressor/loss']


def test_micro_batches_draw_their_own_noise(tiny, tmp_path):
    """Or a batch of equal images would have equal errors in every part."""
    rows = [trained(tiny('diffusion', f'train.accumulate={parts}', 'train.num_steps=1'), tmp_path / str(parts))[1]
            for parts in (1, 2)]  # fmt: skip
    assert rows[0][0]['denoiser/loss'] != rows[1][0]['denoiser/loss']
    assert rows[0][0]['denoiser/loss'] == pytest.approx(rows[1][0]['denoiser/loss'], rel=0.5)


@pytest.mark.parametrize('steps', [5, 12])
def test_several_steps_in_a_call_are_those_steps(tiny, tmp_path, steps):
    """Rows, checkpoints and their steps are the same, also where a call of four would pass them."""
    options = (f'train.num_steps={steps}', 'train.log_every=5', 'checkpoint.every=6', 'checkpoint.keep=9')
    one, rows = trained(tiny('regression', *options), tmp_path / 'one')
    four, other = trained(tiny('regression', *options, 'train.steps_per_call=4'), tmp_path / 'four')
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, four)
    assert [row['step'] for row in rows] == [row['step'] for row in other]
    for mine, theirs in zip(rows, other, strict=True):
        assert mine['regressor/loss'] == pytest.approx(theirs['regressor/loss'], rel=1e-4)
    folders = [sorted(path.name for path in (tmp_path / name / 'checkpoints').iterdir()) for name in ('one', 'four')]
    assert folders[0] == folders[1]


def test_micro_batches_that_do_not_divide_the_batch_are_refused(tiny):
    with pytest.raises(UserError, match=r'train.accumulate \(3\) does not divide train.batch_size \(32\)'):
        tiny('regression', 'train.accumulate=3')


def test_steps_in_a_call_make_no_other_experiment(tiny):
    assert configs.config_hash(tiny('regression')) == configs.config_hash(tiny('regression', 'train.steps_per_call=4'))
    assert configs.config_hash(tiny('regression')) != configs.config_hash(tiny('regression', 'train.accumulate=2'))


class Free(nnx.Module):
    def __init__(self):
        self.direction = nnx.Param(jnp.array([1.0, 0.0]))


class Unit(Free, Constrained):
    def constrain(self):
        self.direction[...] = self.direction[...] / jnp.linalg.norm(self.direction[...])


@register('directions')
class Directions(Regression):
    """Two vectors that move the same way, one of them on the unit circle."""

    def networks(self, rngs):
        return {'regressor': Unit(), 'free': Free()}

    @property
    def updates(self):
        return (Update('both', ('regressor', 'free'), self.loss),)

    def loss(self, networks, batch, key, step):
        loss = -networks['regressor'].direction[1] - networks['free'].direction[1]
        return loss, {'loss': loss}


def test_a_constraint_holds_after_every_update_of_the_networks_that_have_it(tiny, tmp_path):
    options = ('optimizer.name=sgd', 'optimizer.b1=0.0', 'optimizer.learning_rate=0.1', 'optimizer.clip_norm=0.0')
    state, _ = trained(tiny('directions', 'train.num_steps=3', *options), tmp_path / 'run')
    wanted = np.array([1.0, 0.0])
    for _ in range(3):
        wanted = wanted + [0, 0.1]
        wanted /= np.linalg.norm(wanted)
    np.testing.assert_allclose(state['params']['regressor']['direction'], wanted, rtol=1e-5)
    np.testing.assert_allclose(state['params']['free']['direction'], [1, 0.3], rtol=1e-5)
