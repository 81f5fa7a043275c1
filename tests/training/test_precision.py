"""The type in which a loss reads each parameter, and what a step with a split state moves because of it."""

import json

import jax
import jax.numpy as jnp
import pytest
from joined import finish, start

from genbench.training.precision import read_types

HALF, FULL = jnp.dtype('bfloat16'), jnp.dtype('float32')


def cast(x):
    return x.astype(jnp.bfloat16)


def in_a_loop(x):
    return jax.lax.scan(lambda total, _: (total + cast(x).sum(), None), jnp.bfloat16(0), None, length=3)[0]


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (lambda x: cast(x) @ cast(jnp.ones(4)), HALF),
        (jax.jit(lambda x: cast(x).sum()), HALF),
        (jax.checkpoint(lambda x: jax.jit(cast)(x).sum()), HALF),
        (lambda x: jax.grad(lambda y: (cast(x) * y).sum())(jnp.bfloat16(1)), HALF),
        (lambda x: cast(x).sum() + cast(x).max(), FULL),  # a gradient would be a sum of two in bfloat16
        (lambda x: cast(x).sum() + x.max(), FULL),
        (lambda x: (cast(x).sum(), x), FULL),
        (lambda x: x.astype(jnp.float64 if jax.config.jax_enable_x64 else jnp.float32).sum(), FULL),
        (lambda x: x.astype(jnp.int32).sum(), FULL),
        (lambda x: 1.0, FULL),
        (in_a_loop, FULL),
    ],
)
def test_an_array_that_is_only_cast_once_may_be_cast_before(function, expected):
    arrays = {'a': {'x': jax.ShapeDtypeStruct((4,), FULL)}, 'b': jax.ShapeDtypeStruct((4,), FULL)}
    found = read_types(lambda arrays: function(arrays['a']['x']), arrays)
    assert found == {'a': {'x': expected}, 'b': FULL}


STEPS = """
import collections, json, tempfile
import jax
from genbench import config as configs
from genbench.families import stages
from genbench.training import dry_run, hlo, precision, prepared
from genbench.training.loop import train
from genbench.networks import splitting

def config(family, network, *overrides):
    values = {'family': {'name': family}, 'network': network, 'mesh': {'data': 1, 'fsdp': 2},
              'train': {'num_steps': 1, 'batch_size': 32}}
    return configs.resolve(values, overrides)

def sha(config):
    return train(config, tempfile.mkdtemp(), quiet=True).summary['state_sha256']

def moved(config):
    ready = prepared.prepare(config)
    ((_, traced, _),) = dry_run.traced_steps(ready, stages.spans(ready.family)[0])
    found = collections.Counter()
    for one in hlo.Program(traced.lower().compile().as_text()).collectives(ready.mesh.shape):
        found[one.kind] += one.bytes
    return found

transformer = config('diffusion', {'name': 'dit', 'width': 64, 'depth': 1, 'patch': 4, 'dtype': 'bfloat16'},
                     'evaluation.samplers=ddim:1')
adversarial = config('gan', {'channels': 16, 'multipliers': (1,), 'latent': 64})
found = {'sha': sha(transformer), 'gan': moved(adversarial)}
precision.read_types = lambda function, arrays, *rest: jax.tree.map(lambda leaf: leaf.dtype, arrays)
found['sha in float32'] = sha(transformer)
splitting.placed = lambda x: x
found['gan without'] = moved(adversarial)
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def steps():
    """What two processors, each with half of the state, compute and exchange."""
    (said,) = finish(start(['-c', STEPS], devices=2))
    return json.loads(said.splitlines()[-1])


@pytest.mark.slow
def test_parameters_that_travel_in_bfloat16_give_the_same_state(steps):
    assert steps['sha'] == steps['sha in float32']


@pytest.mark.slow
def test_a_gan_with_a_split_state_moves_parameters_and_gradients_but_no_images(steps):
    assert set(steps['gan']) <= {'all-gather', 'all-reduce', 'reduce-scatter'}
    assert steps['gan']['all-gather'] < steps['gan without']['all-gather'] / 2
