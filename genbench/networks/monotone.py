"""A function that rises from 0 to 1 (Kingma et al. 2021, Variational Diffusion Models, appendix H)."""

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array
FLAT = 1e-3  # of the straight line that is added, so that the slope is nowhere zero


class Monotone(nnx.Module):
    """Shares (…,) in [0, 1] → shares, rising, with both ends where they are: a line and sigmoids of positive weights.

    Fresh, it is nearly the identity: the sigmoids, spread evenly, start small.
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
