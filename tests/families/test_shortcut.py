"""Shortcut models against the flow of Gaussian data, whose jumps are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import mean_velocity as exact
from oracles import velocity

from genbench.data.spec import DataSpec
from genbench.families.base import Networks

SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)


class Averaged(Networks):
    """The average is the network itself."""

    def averaged(self, name):
        return self


def losses(family, network, keys, count=2000):
    rows = {'image': jax.random.randint(jax.random.key(1), (count, 1, 1, 2), 2000, 6000), 'key': keys(count)}
    return float(family.loss(Averaged({'denoiser': network}), rows, jax.random.key(0), jnp.zeros(()))[0])


def test_the_jumps_of_a_flow_are_consistent_and_its_velocity_alone_is_not(make_family, keys):
    """The shortest jumps, of 1 / 2¹⁰, are along the velocity, which is all that is left of the loss."""
    family = make_family('shortcut', spec=SPEC, consistent=1.0, halvings=10)
    assert losses(family, exact, keys) < 1e-4
    assert losses(family, velocity, keys) > 1e-3


def test_images_that_learn_no_jumps_learn_the_velocity_of_flow_matching(make_family, keys):
    plain, family = make_family('flow_matching', spec=SPEC), make_family('shortcut', spec=SPEC, consistent=0.0)
    of_flow = lambda x_t, t, given=None, key=None: velocity(x_t, t, s=t)  # noqa: E731
    assert losses(family, velocity, keys) == pytest.approx(losses(plain, of_flow, keys), rel=1e-5)


def test_jumps_lie_on_the_grid_of_their_length(make_family, keys):
    family, seen = make_family('shortcut', spec=SPEC, consistent=1.0, halvings=4), []

    def network(x_t, t, given=None, key=None, s=None):
        seen.append((np.asarray(t, float), np.asarray(s, float)))
        return jnp.zeros_like(x_t)

    losses(family, network, keys)
    (t, half), _, (start, end) = seen
    length = start - end
    assert set(length) == {1.0, 0.5, 0.25, 0.125}
    np.testing.assert_array_equal(start / length, np.round(start / length))
    np.testing.assert_array_equal(start, t)
    np.testing.assert_array_equal(t - half, np.where(length == 0.125, 0, length / 2))
