"""Every shipped family on tiny images, with a state whose parameters are random everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Borrowed
from genbench.training.state import Blueprint

SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3)
# Two channels in a group: with one, the normalisation would take every bias before it away.
UNET = {'channels': 8, 'multipliers': (1,), 'groups': 4}
NETWORKS = {
    'gaussian': {},
    'vae': UNET,
    'gan': {'channels': 8, 'multipliers': (1,), 'latent': 4},
    'diffusion': UNET,
    'flow_matching': UNET,
    'mean_flow': UNET,
    'shortcut': UNET,
    'inductive_moment_matching': UNET,
    'consistency': {},
    'normalizing_flow': {'channels': 8, 'multipliers': (1,), 'steps': 2},
}


def _resolve(name, conditional=False, **options):
    return config.resolve({'family': {'name': name, 'conditional': conditional, **options}, 'network': NETWORKS[name]})


def _family(name, conditional=False, spec=SPEC, borrowed=None, **options):
    if name == 'consistency' and borrowed is None:
        borrowed = {'teacher': Borrowed(_resolve('diffusion', conditional), spec)}
    return families.get(name)(_resolve(name, conditional, **options), spec, borrowed)


def _batch(size=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, SPEC.levels, (size, *SPEC.shape))
    keys = jax.random.split(jax.random.key(7), size)
    return {'image': jnp.asarray(images, jnp.int32), 'label': jnp.arange(size) % SPEC.classes, 'key': keys}


def _scrambled(tree, seed=1):
    """Random parameters everywhere, for fresh networks end in zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), tree)


@functools.cache
def _built(name, conditional=False):
    """(family, blueprint, its state)."""
    family = _family(name, conditional)
    blueprint = Blueprint(family)
    if name == 'gaussian':
        networks = blueprint.bind_state(jax.jit(blueprint.initial_state)(jax.random.key(0), _batch(), {}))
        family.loss(networks, _batch(200), jax.random.key(0), jnp.zeros(()))
        return family, blueprint, blueprint.fresh_state(blueprint.params(networks), blueprint.aux(networks))
    borrowed = {'teacher': _built('diffusion', conditional)[2]['params']} if name == 'consistency' else {}
    state = jax.eval_shape(blueprint.initial_state, jax.random.key(0), _batch(), borrowed)
    averages = {average: _scrambled(tree, seed=2) for average, tree in state['averages'].items()}
    return family, blueprint, {**state, 'step': 0, 'params': _scrambled(state['params']), 'averages': averages}


@pytest.fixture
def resolve():
    """`resolve(family, conditional=False, option=…)` → a config with a tiny network."""
    return _resolve


@pytest.fixture
def make_family():
    """`make_family(name, conditional=False, spec=…, borrowed=…, option=…)`."""
    return _family


@pytest.fixture
def built():
    """`built(name, conditional=False)` → (family, blueprint, scrambled state)."""
    return _built


@pytest.fixture
def batch():
    return _batch()


@pytest.fixture
def keys():
    return lambda count, seed=0: jax.random.split(jax.random.key(seed), count)
