"""Mean flows against the flow of Gaussian data, whose mean velocity is known between any two times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import DEVIATION, velocity
from oracles import mean_velocity as exact

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Networks, Sampler

SPEC = DataSpec('pairs', (1, 1, 2), levels=8192)
COUNT = 40_000


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
    with pytest.raises(UserError, match="family.prediction is 'x', but mean_flow learns a mean velocity; use velocity"):
        make_family('mean_flow', prediction='x')
