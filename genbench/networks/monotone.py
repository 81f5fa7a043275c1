"""A function that rises from 0 to 1 (Kingma et al. 2021, Variational Diffusion Models, appendix H)."""

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array
FLAT = 1e-3  # weight of the added straight line, which keeps the slope above zero everywhere


class Monotone(nnx.Module):
    """A rising map of [0, 1] (…,) onto itself that keeps both ends: a line plus sigmoids with positive weights.

    A fresh map is nearly the identity, since the evenly spread sigmoids start small.
    """

    def __init__(self, rngs: nnx.Rngs, features: int = 64):
        places = (jnp.arange(features) + 0.5) / features
        self.line = nnx.Param(jnp.zeros(()))
        self.heights = nnx.Param(jax.random.normal(rngs.params(), (features,)) * 0.1 - 7)
        self.slopes = nnx.Param(jnp.full(features, 20.0))
        self.places = nnx.Param(places)

    def __call__(self, share: Array) -> Array:
        def rising(share: Array) -> Array:
            inside = jax.nn.softplus(self.slopes[...]) * (share[..., None] - self.places[...])
            curve = (jax.nn.softplus(self.heights[...]) * jax.nn.sigmoid(inside)).sum(-1)
            return (FLAT + jax.nn.softplus(self.line[...])) * share + curve

        low, high = rising(jnp.zeros(())), rising(jnp.ones(()))
        return (rising(share) - low) / (high - low)
