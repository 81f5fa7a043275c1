"""A family that grows from 4×4 to 8×8, and runs of it that are killed on the way. Its weights can be foretold."""

import json
import os
import pathlib
import signal
import sys
import tempfile
import traceback

import jax
import jax.numpy as jnp
from flax import nnx
from orbax import checkpoint

from genbench import config as configs
from genbench import rng
from genbench.data import sources
from genbench.families.base import Family, Likelihood, Samples, Update, register
from genbench.families.stages import Stage
from genbench.networks import decoders
from genbench.training import loop, metrics
from genbench.training.checkpoint import Checkpoints

STAGES = (Stage('small', images=47, shape=(4, 4), batch_size=16, optimizer={'learning_rate': 0.5}), Stage('large'))
BOUNDARY, STEPS, SMALL, LARGE = 3, 6, 16, 8  # 47 images take three batches of 16


class Table(nnx.Module):
    """Numbers to learn, and the sum of the images that they have last seen."""

    def __init__(self, shape):
        self.values = nnx.Param(jnp.zeros(shape))
        self.seen = nnx.BatchStat(jnp.zeros((), jnp.int32))


@register('grown')
class Grown(Family):
    """Logits for every pixel, which grow with it; 'line', whose loss moves it by the learning rate, does not."""

    stages = STAGES

    def networks(self, rngs):
        return {'pixels': Table((*self.spec.shape, self.spec.levels)), 'line': Table(1)}

    @property
    def updates(self):
        return (Update('pixels', ('pixels', 'line'), self.loss),)

    def loss(self, networks, batch, key, step):
        networks['line'].seen[...] = batch['image'].sum()
        noisy = batch['image'] + (rng.normal(batch['key'], 'noise', self.spec.shape) > 0)
        loss = -self.log_prob(networks, jnp.minimum(noisy, self.spec.levels - 1)).mean()
        return loss + networks['line'].values[...].sum(), {'loss': loss}

    def log_prob(self, networks, images, given=None, keys=None):
        logits = jnp.broadcast_to(networks['pixels'].values[...], (*images.shape, self.spec.levels))
        return decoders.categorical(logits, images).sum((1, 2, 3))

    def carry(self, old, new):
        super().carry(old, new)
        new['pixels'].values[...] = old['pixels'].values[...].repeat(2, 0).repeat(2, 1)

    def sample(self, networks, keys, given, sampler):
        return Samples(jax.vmap(lambda key: jax.random.categorical(key, networks['pixels'].values[...]))(keys), 1)

    @property
    def likelihoods(self):
        return (Likelihood('table', 'exact', self.log_prob, {'dequantisation': 'none'}),)


def config(*overrides):
    """Six steps, the learning rate falling to zero over each stage, with every checkpoint and snapshot."""
    values = {
        'family': {'name': 'grown'},
        'train': {'num_steps': STEPS, 'batch_size': LARGE, 'log_every': 1, 'power_widths': (0.1,), 'snapshot_every': 1},
        'optimizer': {'name': 'sgd', 'b1': 0.0, 'learning_rate': 1.0, 'schedule': 'linear', 'clip_norm': 0.0},
        'checkpoint': {'every': 1, 'keep': STEPS},
        'evaluation': {'metrics': ('fd_train', 'likelihood', 'exploration'), 'features': {'name': 'pixels'},
                       'num_samples': 32, 'sets': 1},
    }  # fmt: skip
    return configs.resolve(values, overrides)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def within(step):
    """Die before a step."""
    fetch = loop.Training.inputs
    loop.Training.inputs = lambda self, at: die() if at == step else fetch(self, at)


def at_the_boundary():
    """Die while the last checkpoint of the first stage is being written."""
    save = Checkpoints.save
    Checkpoints.save = lambda self, step, *rest: (save(self, step, *rest), step == BOUNDARY and die())


def between():
    """Die when that is written and the second stage has not begun."""
    enter = loop.Training.enter
    loop.Training.enter = lambda self, stage, step, state: (
        enter(self, stage, step, state) if step != BOUNDARY else (self.checkpoints.wait(), die())
    )


def in_a_child(devices, folder, patch=lambda: None):
    """Train in a process of its own with so many devices; → the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            jax.config.update('jax_num_cpu_devices', devices)
            patch()
            loop.train(config(), folder, quiet=True)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ended(devices, folder):
    """(how starts ended, the hash of the killed run and of the unbroken one, their devices)."""
    kills = (at_the_boundary, between, lambda: within(4))
    codes = [in_a_child(devices, folder / 'killed', patch) for patch in (*kills, lambda: None)]
    codes.append(in_a_child(devices, folder / 'unbroken'))
    told = [json.loads((folder / name / 'summary.json').read_text()) for name in ('killed', 'unbroken')]
    return codes, *(one['state_sha256'] for one in told), [one['devices'] for one in told]


if __name__ == '__main__':
    sources.open_builder('digits')  # and so import what takes long once, for all children
    _ = checkpoint.v1
    metrics.tensorboard()
    with tempfile.TemporaryDirectory() as made:
        print(json.dumps({n: ended(int(n), pathlib.Path(made) / n) for n in sys.argv[1:]}))
