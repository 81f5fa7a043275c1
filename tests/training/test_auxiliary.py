"""Variables that losses keep are those of the whole batch, over devices, with fsdp and with micro-batches."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench.errors import UserError
from genbench.networks.gradients import value_and_input_gradient
from genbench.training.loop import train
from tests.training import auxiliary

SPLIT = [name for name in auxiliary.NAMES if name != 'strength']


@functools.cache
def alone(name):
    """One device and one batch."""
    return auxiliary.ended(name, 1)


@functools.cache
def elsewhere(devices, *words):
    """All families in another process with so many devices."""
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    command = [sys.executable, '-m', 'tests.training.auxiliary', *words]
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize('name', SPLIT)
def test_micro_batches_leave_what_the_whole_batch_leaves(name):
    assert_same(auxiliary.ended(name, 2), alone(name))


@pytest.mark.parametrize('name', auxiliary.NAMES)
@pytest.mark.parametrize('words', [('1',), ('1', 'mesh.data=1', 'mesh.fsdp=2')], ids=['data', 'fsdp'])
def test_two_devices_leave_what_one_leaves(words, name):
    assert_same(elsewhere(2, *words)[name], alone(name))


@pytest.mark.parametrize('name', SPLIT)
def test_two_devices_and_micro_batches_leave_what_one_leaves(name):
    assert_same(elsewhere(2, '2')[name], alone(name))


@pytest.mark.parametrize('name', auxiliary.NAMES)
def test_the_variables_of_these_losses_move(name):
    """Or the tests above would hold of losses that keep nothing."""
    moved = auxiliary.ended(name, 1, 'train.num_steps=6')
    kept = [key for key in moved if key.startswith("['aux']")]
    assert kept and all(not np.allclose(moved[key], alone(name)[key], rtol=1e-6, atol=0) for key in kept)


def test_a_loss_that_needs_the_whole_batch_is_refused_micro_batches(tmp_path):
    wanted = 'train.accumulate is 2, but the update network changes network/value from a whole batch'
    with pytest.raises(UserError, match=wanted):
        train(auxiliary.config('strength', 'train.accumulate=2'), tmp_path / 'run', quiet=True)


def test_the_gradient_by_the_input_passes_through_what_the_network_updates():
    """Against differences of the values, by which the variables do not move; and one call moves them once."""
    network = auxiliary.Normalised(nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (3, 64))
    definition, state = nnx.split(network)
    state = nnx.to_pure_dict(state)  # or the copies would share their variables with it
    expected = nnx.merge(definition, state)
    values = expected(x)
    found, gradient = value_and_input_gradient(network, x)
    np.testing.assert_allclose(found, values, rtol=1e-6)
    np.testing.assert_allclose(network.left[...], expected.left[...], rtol=1e-6)
    direction = jax.random.normal(jax.random.key(2), x.shape)
    ahead, behind = (nnx.merge(definition, state)(x + step * direction) for step in (1e-2, -1e-2))
    np.testing.assert_allclose((gradient * direction).sum(1), (ahead - behind) / 2e-2, rtol=2e-3, atol=2e-4)


def test_a_penalty_on_that_gradient_has_the_right_slope_by_the_parameters():
    """∂/∂θ of ‖∇ D‖² against differences of the last layer, by which the vectors do not move."""
    definition, params, rest = nnx.split(auxiliary.Normalised(nnx.Rngs(0)), nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)
    x = jax.random.normal(jax.random.key(1), (4, 64))
    shift = 1e-2 * jax.random.normal(jax.random.key(3), params['output']['kernel'].shape)

    def penalty(kernel):
        moved = {**params, 'output': {**params['output'], 'kernel': kernel}}
        _, gradient = value_and_input_gradient(nnx.merge(definition, moved, rest), x)
        return jnp.square(gradient).sum(1).mean()

    kernel = params['output']['kernel']
    expected = (penalty(kernel + shift) - penalty(kernel - shift)) / 2
    assert float((jax.grad(penalty)(kernel) * shift).sum()) == pytest.approx(float(expected), rel=1e-3)
