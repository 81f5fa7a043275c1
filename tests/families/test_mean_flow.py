"""Mean flows against the flow of Gaussian data, whose mean velocity is known between any two times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler
from genbench.interpolants.schedules import expand

SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
DEVIATION = np.array([0.3, 0.1])
COUNT = 40_000


def exact(x_t, t, given=None, key=None, s=None):
    """(x_t − x_s) / (t − s) of data N(0, DEVIATION²) on the straight path, where x_t / deviation(t) stays as it is."""
    deviation = lambda t: jnp.sqrt(jnp.square((1 - expand(t, x_t)) * DEVIATION) + jnp.square(expand(t, x_t)))  # noqa: E731
    length = jnp.where(t - s > 1e-3, t - s, 1e-3)
    return x_t * (1 - deviation(t - length) / deviation(t)) / expand(length, x_t)


def velocity(x_t, t, given=None, key=None, s=None):
    return exact(x_t, t, s=t)


@pytest.fixture
def rows(keys):
    x = DEVIATION * np.random.default_rng(0).normal(size=(COUNT, 2))
    return {'image': SPEC.quantise(x.astype(np.float32)).reshape(-1, 1, 1, 2), 'key': keys(COUNT)}


@pytest.mark.parametrize(('network', 'right'), [(exact, True), (velocity, False)])
def test_the_mean_velocity_of_the_flow_has_no_gradient(network, right, make_family, rows):
    """The loss of (1 + a) u by a, at a = 0: half of it is the mean of u · (u − target)."""
    family = make_family('mean_flow', spec=SPEC, apart=1.0, adaptive=0.0, time_sampler='uniform')

    def loss(a):
        scaled = lambda *inputs, **options: (1 + a) * network(*inputs, **options)  # noqa: E731
        return family.loss(Networks({'denoiser': scaled}), rows, jax.random.key(0), jnp.zeros(()))[0]

    slope = float(jax.jit(jax.grad(loss))(0.0))
    assert abs(slope) < 0.02 if right else abs(slope) > 0.1


def test_one_step_of_the_exact_map_draws_the_data(make_family, keys):
    family = make_family('mean_flow', spec=SPEC)
    for steps in (1, 3):
        images = family.sample(Networks({'denoiser': exact}), keys(20_000), None, Sampler('flow_map', steps)).images
        np.testing.assert_allclose(SPEC.dequantise(images).std((0, 1, 2)), DEVIATION, rtol=0.03)


def test_what_is_no_velocity_is_refused(make_family):
    with pytest.raises(UserError, match="family.prediction is 'x', and mean_flow learns a mean velocity; use velocity"):
        make_family('mean_flow', prediction='x')
