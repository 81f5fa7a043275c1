"""The basis of toy families that tests sample and score, and that have next to nothing to train."""

import jax.numpy as jnp
from flax import nnx

from genbench.families.base import Family, Update


class Nothing(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.zeros(1))


class Untrained(Family):
    """Its one weight falls without an effect."""

    def networks(self, rngs):
        return {'nothing': Nothing()}

    @property
    def updates(self):
        return (Update('nothing', ('nothing',), lambda networks, *_: (networks['nothing'].w[...].sum(), {})),)
