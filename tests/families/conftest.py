"""Every shipped family on tiny images, with a state whose parameters are random everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shipped

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Borrowed
from genbench.training.state import Blueprint

SPEC = DataSpec('images', (4, 4, 3), levels=5, classes=3)
# Two channels in a group: with one, the normalisation would take every bias before it away.
SIZES = {**shipped.SIZES, 'groups': 4, 'latent': 4, 'steps': 2, 'features': 4, 'mapping_rate': 1.0}
# Equalised learning rates scale parameters of variance 1 where they are used. The exponentials of a deep flow overflow
# with those of the others. Within the margins of the hinge loss, the last bias of a discriminator has no slope.
SPREADS = {'style_gan': 1.0, 'noised_flow': 0.03, 'adversarial_distillation': 0.5,
           'kl_autoencoder': 0.5}  # fmt: skip
SEEDS = {'distribution_matching': 3}  # with the parameters of the teacher, one of its networks would be the teacher


def _resolve(name, conditional=False, **options):
    network = shipped.network(name, **SIZES)
    return config.resolve({'family': {'name': name, 'conditional': conditional, **options}, 'network': network})


@functools.cache
def _lenders(name):
    return shipped.lenders(name, _resolve, SPEC)


def _family(name, conditional=False, spec=SPEC, borrowed=None, **options):
    if borrowed is None:
        borrowed = {key: Borrowed(_family(one, conditional, spec)) for key, one in _lenders(name).items()}
    return families.get(name)(_resolve(name, conditional, **options), spec, borrowed)


def _batch(size=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, SPEC.levels, (size, *SPEC.shape))
    keys = jax.random.split(jax.random.key(7), size)
    return {'image': jnp.asarray(images, jnp.int32), 'label': jnp.arange(size) % SPEC.classes, 'key': keys}


def _scrambled(tree, seed=1, scale=0.2):
    """Random parameters everywhere, for fresh networks end in zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32), tree)


@functools.cache
def _built(name, conditional=False):
    """(family, blueprint, its state with what is lent beside it)."""
    family = _family(name, conditional)
    blueprint = Blueprint(family)
    lent = {key: _built(one, conditional)[2] for key, one in _lenders(name).items()}
    lent = {key: {part: one[part] for part in ('params', 'aux', 'lent')} for key, one in lent.items()}
    state = jax.eval_shape(blueprint.initial_state, jax.random.key(0), _batch(), lent)
    if jax.tree.leaves(state['aux']):  # what is kept beside parameters is made, for noise is none of its values
        networks = blueprint.bind_state(jax.jit(blueprint.initial_state)(jax.random.key(0), _batch(), lent))
        for update in family.updates:
            if update.optimizer is None:
                update.loss(networks, _batch(200), jax.random.key(0), jnp.zeros(()))
        state = {**state, 'aux': blueprint.aux(networks)}
    scale = SPREADS.get(name, 0.2)
    state = {**state, 'step': 0, 'params': _scrambled(state['params'], SEEDS.get(name, 1), scale), 'lent': lent}
    averages = {average: _scrambled(tree, 2, scale) for average, tree in state['averages'].items()}
    return family, blueprint, {**state, 'averages': averages}


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
