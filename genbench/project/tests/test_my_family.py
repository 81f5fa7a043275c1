"""Properties that the family must have, whatever it has learned."""

import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.families.base import Networks, Sampler

CONFIG = pathlib.Path(__file__).parents[1] / 'configs' / 'digits.py'


@pytest.fixture
def tiny():
    """The family and its networks, for 2×2 images with three levels."""
    resolved = config.load(str(CONFIG))
    family = families.get(resolved.family.name)(resolved, DataSpec('tiny', (2, 2, 1), 3))
    return family, Networks(family.networks(nnx.Rngs(0)))


def test_probabilities_of_all_images_sum_to_one(tiny):
    family, networks = tiny
    images = jnp.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2, 1)
    np.testing.assert_allclose(jnp.exp(family.log_prob(networks, images)).sum(), 1, rtol=1e-5)


def test_a_sample_does_not_depend_on_its_batch(tiny):
    family, networks = tiny
    keys = jax.random.split(jax.random.key(0), 4)
    together = family.sample(networks, keys, None, Sampler('direct')).images
    alone = family.sample(networks, keys[2:3], None, Sampler('direct')).images
    np.testing.assert_array_equal(together[2:3], alone)
