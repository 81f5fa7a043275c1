"""Running means and covariances."""

import jax
import jax.numpy as jnp
from flax import nnx


class Moments(nnx.Module):
    """Count, mean and scatter of vectors, one set per component. They are auxiliary state, not parameters."""

    def __init__(self, components: int, size: int):
        self.count = nnx.BatchStat(jnp.zeros(components))
        self.mean = nnx.BatchStat(jnp.zeros((components, size)))
        self.scatter = nnx.BatchStat(jnp.zeros((components, size, size)))

    def accumulate(self, x: jax.Array, component: jax.Array) -> None:
        """Add vectors x (batch, size) to the moments of their components (batch,)."""
        member = jax.nn.one_hot(component, len(self.count[...]), axis=0)  # (components, batch)
        added = member.sum(1)
        total = self.count[...] + added
        mean = jnp.matmul(member, x, precision='highest') / jnp.maximum(added, 1)[:, None]
        residual = (x - mean[:, None]) * member[..., None]
        shift = mean - self.mean[...]
        weight = self.count[...] * added / jnp.maximum(total, 1)
        between = shift[:, :, None] * shift[:, None] * weight[:, None, None]
        self.scatter[...] += jnp.einsum('cbi,cbj->cij', residual, residual, precision='highest') + between
        self.mean[...] += shift * (added / jnp.maximum(total, 1))[:, None]
        self.count[...] = total

    def moments(self) -> tuple[jax.Array, jax.Array]:
        """Means (components, size) and maximum-likelihood covariances (components, size, size)."""
        return self.mean[...], self.scatter[...] / jnp.maximum(self.count[...], 1)[:, None, None]
