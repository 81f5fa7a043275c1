"""The reversible backward pass: its gradients are those of ordinary calls, its memory does not grow with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.data.conditions import Form
from genbench.errors import UserError
from genbench.networks import couplings

OPTIONS = {'channels': 8, 'multipliers': (1, 1), 'margin': 0.01, 'dropout': 0.0}
GLOW = {'pixels': 'plain', 'mixing': 'rotation', 'scale': 'sigmoid', 'normalised': True, 'prior': 'learned'}
FORMS = {'label': Form('classes', (), 3)}
SHAPE, LABEL = (8, 8, 1), {'label': jnp.arange(8) % 3}


def images():
    return jax.random.uniform(jax.random.key(2), (8, *SHAPE), minval=-1, maxval=1)


def make(steps, reversible, **options):
    """A flow whose couplings move what they see, with the normalisations of the images."""
    flow = couplings.Flow(SHAPE, FORMS, steps=steps, reversible=reversible, rngs=nnx.Rngs(0), **{**OPTIONS, **options})
    rng = np.random.default_rng(0)
    for step in (step for steps in flow.scales for step in steps):
        network = step.coupling.network
        kernel = step.coupling.conv_out.kernel if network is None else network.output.conv.kernel
        kernel[...] = jnp.asarray(0.05 * rng.normal(size=kernel.shape), jnp.float32)
    return flow


def slopes(flow):
    """A program (parameters, images) → the gradient of the mean log-density for both."""
    graph, params = nnx.split(flow)

    def loss(params, x):
        z, log_det = nnx.merge(graph, params)(x, LABEL)
        return (jax.scipy.stats.norm.logpdf(z).sum(1) + log_det).mean()

    return jax.jit(jax.value_and_grad(loss, (0, 1))), params


@pytest.mark.parametrize('options', [{}, GLOW], ids=['couplings', 'glow'])
def test_gradients_are_those_of_ordinary_calls(options):
    plain, reversible = (make(2, flag, **options) for flag in (False, True))
    nnx.update(reversible, nnx.state(plain))
    found = [program(params, images()) for program, params in map(slopes, (plain, reversible))]
    assert found[0][0] == pytest.approx(float(found[1][0]), rel=1e-6)
    for one, other in zip(*(jax.tree.leaves(both[1]) for both in found), strict=True):
        assert np.abs(one - other).max() <= 1e-4 * max(1, np.abs(one).max())
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found[0][1])) > 0.1


def test_temporaries_of_the_compiled_program_grow_with_depth_only_if_activations_are_kept():
    def temporaries(steps, reversible):
        program, params = slopes(make(steps, reversible, multipliers=(1,)))
        return program.lower(params, images()).compile().memory_analysis().temp_size_in_bytes

    kept, inverted = ([temporaries(steps, flag) for steps in (2, 8)] for flag in (False, True))
    assert kept[1] > 2 * kept[0] and inverted[1] < 1.2 * inverted[0] < kept[1]


def test_steps_with_dropout_are_refused():
    with pytest.raises(UserError, match='steps with dropout have no inverse; use network.dropout=0'):
        make(1, True, dropout=0.5)
