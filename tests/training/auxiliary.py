"""Small families whose losses keep variables of four kinds, and what a run of each ends with.

python auxiliary.py ACCUMULATE trains all that allow so many micro-batches on all devices, and prints the numbers.
"""

import json
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from genbench import config as configs
from genbench.families.base import Family, Samples, Update, register
from genbench.networks.gradients import value_and_input_gradient
from genbench.training import runs
from genbench.training.loop import train

DECAY, CODES = 0.9, 4
NAMES = ('codebook', 'spectral_norm', 'path_length', 'strength')


class Toy(Family):
    splits = True

    @property
    def updates(self):
        return (Update('network', ('network',), self.loss, splits=self.splits),)

    def vectors(self, batch):
        return self.spec.dequantise(batch['image']).reshape(len(batch['image']), -1)

    def sample(self, networks, keys, given, sampler):
        return Samples(jnp.zeros((len(keys), *self.spec.shape), jnp.int32), 1)


class Codes(nnx.Module):
    def __init__(self, rngs):
        self.encode = nnx.Linear(64, 2, rngs=rngs)
        self.share = nnx.BatchStat(jnp.full(CODES, 1 / CODES))
        self.total = nnx.BatchStat(jnp.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]]) / CODES)


@register('codebook')
class Codebook(Toy):
    """Codes are moving averages of what is assigned to them (van den Oord et al. 2017, appendix A.1)."""

    def networks(self, rngs):
        return {'network': Codes(rngs)}

    def loss(self, networks, batch, key, step):
        network = networks['network']
        z = network.encode(self.vectors(batch))
        codes = network.total[...] / network.share[...][:, None]
        distance = jnp.square(z[:, None] - codes).sum(-1)
        chosen = jax.nn.one_hot(distance.argmin(1), CODES)
        network.share[...] = DECAY * network.share[...] + (1 - DECAY) * chosen.mean(0)
        moved = (chosen.T @ jax.lax.stop_gradient(z)) / len(z)
        network.total[...] = DECAY * network.total[...] + (1 - DECAY) * moved
        loss = (distance * chosen).sum(1).mean()
        return loss, {'loss': loss}


class Normalised(nnx.Module):
    """A critic whose matrix is divided by its largest singular value, by one step of power iteration a call."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 8, rngs=rngs)
        self.output = nnx.Linear(8, 1, rngs=rngs)
        self.left = nnx.BatchStat(jnp.ones(8) / 8**0.5)

    def __call__(self, x):
        kernel = self.hidden.kernel[...]
        right = jax.lax.stop_gradient(kernel @ self.left[...])
        right = right / jnp.linalg.norm(right)
        left = jax.lax.stop_gradient(right @ kernel)
        self.left[...] = left / jnp.linalg.norm(left)
        h = x.reshape(len(x), -1) @ (kernel / (right @ kernel @ self.left[...]))
        return self.output(jnp.sin(h + self.hidden.bias[...]))[:, 0]


@register('spectral_norm')
class SpectralNorm(Toy):
    """R1 on a spectrally normalised critic: the gradient inside the loss passes through what the network updates."""

    def networks(self, rngs):
        return {'network': Normalised(rngs)}

    def loss(self, networks, batch, key, step):
        values, gradient = value_and_input_gradient(networks['network'], self.vectors(batch))
        loss = nnx.softplus(-values).mean() + 5 * jnp.square(gradient).sum(1).mean()
        return loss, {'loss': loss}


class Tracked(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(64, 3, rngs=rngs)
        self.value = nnx.BatchStat(jnp.zeros(()))


@register('path_length')
class PathLength(Toy):
    """A moving mean of a length, from which the lengths of a batch are pulled (Karras et al. 2020, equation 4)."""

    def networks(self, rngs):
        return {'network': Tracked(rngs)}

    def loss(self, networks, batch, key, step):
        network = networks['network']
        length = jnp.linalg.norm(network.linear(self.vectors(batch)), axis=1)
        target = network.value[...]
        network.value[...] = DECAY * target + (1 - DECAY) * jax.lax.stop_gradient(length.mean())
        loss = jnp.square(length - target).mean()
        return loss, {'loss': loss}


@register('strength')
class Strength(Toy):
    """An augmentation's strength that follows the sign of a mean over the batch (Karras et al. 2020, section 3.2)."""

    splits = False

    def networks(self, rngs):
        return {'network': Tracked(rngs)}

    def loss(self, networks, batch, key, step):
        network = networks['network']
        values = network.linear(self.vectors(batch))[:, 0]
        network.value[...] += 0.01 * jnp.sign(jnp.sign(values).mean() - 0.1)
        loss = jnp.square(values - 1 - network.value[...]).mean()
        return loss, {'loss': loss}


def config(name, *options):
    values = {'family': {'name': name}, 'train': {'num_steps': 5, 'batch_size': 32, 'log_every': 5}}
    return configs.resolve(values, ('optimizer.name=sgd', 'optimizer.learning_rate=0.05', *options))


def ended(name, accumulate, *options):
    """The parameters and variables of a run, as lists by name."""
    with tempfile.TemporaryDirectory() as folder:
        train(config(name, f'train.accumulate={accumulate}', *options), pathlib.Path(folder) / 'run', quiet=True)
        state = runs.open_run(pathlib.Path(folder) / 'run').restore()[1]
        leaves = jax.tree_util.tree_leaves_with_path({key: state[key] for key in ('params', 'aux')})
        return {jax.tree_util.keystr(path): np.asarray(leaf).ravel().tolist() for path, leaf in leaves}


if __name__ == '__main__':
    parts = int(sys.argv[1])
    named = [name for name in NAMES if parts == 1 or name != 'strength']
    print(json.dumps({name: ended(name, parts, *sys.argv[2:]) for name in named}))
