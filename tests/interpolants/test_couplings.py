"""Couplings against scipy's assignment, and against all orders of a few."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from genbench.interpolants import couplings

assign = jax.jit(couplings.assignment)


@pytest.mark.parametrize('count', [1, 2, 5])
def test_the_assignment_is_the_best_of_all(count):
    costs = np.random.default_rng(0).normal(size=(20, count, count)).astype(np.float32)
    for cost in costs:
        least = min(
            sum(cost[row, order[row]] for row in range(count)) for order in itertools.permutations(range(count))
        )
        found = np.asarray(assign(cost))
        assert sorted(found) == list(range(count))
        assert cost[np.arange(count), found].sum() == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize('coarse', [False, True], ids=['distinct', 'tied'])
def test_a_batch_is_assigned_as_scipy_does(coarse):
    x, noise = np.random.default_rng(1).normal(size=(2, 96, 16)).astype(np.float32)
    cost = -2 * x @ noise.T
    cost = np.round(cost / 8) if coarse else cost
    found = np.asarray(assign(cost))
    assert sorted(found) == list(range(96))
    least = cost[linear_sum_assignment(cost)].sum()
    assert cost[np.arange(96), found].sum() == pytest.approx(least, abs=1e-3)


def test_optimal_transport_finds_the_noise_that_was_shuffled():
    """Noise near its image is nearer than any other; the order of the batch does not matter."""
    images = jax.random.normal(jax.random.key(0), (32, 3, 3, 1))
    near = images + 0.01 * jax.random.normal(jax.random.key(1), images.shape)
    shuffled = near[jax.random.permutation(jax.random.key(2), 32)]
    np.testing.assert_array_equal(couplings.optimal_transport(images, shuffled), near)
    np.testing.assert_array_equal(couplings.independent(images, shuffled), shuffled)


def test_in_one_dimension_optimal_transport_sorts():
    images, noise = jax.random.normal(jax.random.key(3), (2, 40, 1, 1, 1))
    found = couplings.optimal_transport(images, noise)
    ranks = [jnp.argsort(jnp.argsort(value.ravel())) for value in (images, found)]
    np.testing.assert_array_equal(*ranks)
