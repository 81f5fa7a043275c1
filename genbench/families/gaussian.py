"""The Gaussian in closed form, with a full or a diagonal covariance: the floor that every trained family must beat.

Its maximum-likelihood mean and covariance are accumulated over the batches it sees (Chan, Golub, LeVeque 1983,
equation 2.1). A run whose batches cover the train set once is therefore exact. Uniform dequantisation adds w²/12 to the
variances, where w is the width of one level; this is done analytically.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Given, combinations, combined
from genbench.families import dequantisation
from genbench.families.base import (
    Array,
    Batch,
    Family,
    Likelihood,
    Networks,
    Sampler,
    Scalars,
    Update,
    register,
)
from genbench.networks.moments import Moments
from genbench.ranges import one_of


@register('gaussian')
class Gaussian(Family):
    """One Gaussian, or one Gaussian per combination of classes."""

    ranges = {'covariance': one_of('full', 'diagonal')}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {'covariance': 'full'}  # or 'diagonal', for independent dimensions
        return {**base, 'network': {'name': 'none'}, 'family': {**base.get('family', {}), **options}}

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {'moments': Moments(combinations(self.forms), self.spec.num_dims)}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('moments', ('moments',), self.loss, optimizer=None),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        x = self._vectors(batch['image'])
        networks['moments'].accumulate(x, self._components(self.given(batch), len(x)))
        return jnp.zeros(()), {'images': networks['moments'].count[...].sum()}

    def _vectors(self, images: Array) -> Array:
        return self.spec.dequantise(images).reshape(len(images), -1)

    def _components(self, given: Given, size: int) -> Array:
        return combined(self.forms, given, size) if given else jnp.zeros(size, int)

    def _cholesky(self, networks: Networks) -> tuple[Array, Array]:
        """Means (components, d) and Cholesky factors (components, d, d) for the dequantised data."""
        mean, covariance = networks['moments'].moments()
        if self.config.family.covariance == 'diagonal':
            covariance *= jnp.eye(self.spec.num_dims)
        noise = (2 / self.spec.levels) ** 2 / 12
        return mean, jnp.linalg.cholesky(covariance + noise * jnp.eye(self.spec.num_dims))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.spec.num_dims,)

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        mean, factor = self._cholesky(networks)
        component = self._components(given, len(latents))
        product = jax.vmap(lambda c, z: jnp.matmul(factor[c], z, precision='highest'))(component, latents)
        return self.spec.quantise(mean[component] + product).reshape(len(latents), *self.spec.shape)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        draws = self.config.evaluation.dequantisation_draws
        return dequantisation.likelihoods('density', 'lower_bound', self.space, draws, self._log_density)

    def _log_density(self, networks: Networks, given: Given) -> dequantisation.LogDensity:
        """log N(x; m, S) for the dequantised data."""
        components = self._cholesky(networks)

        def log_density(x: Array, keys: Array) -> Array:
            x = x.reshape(len(x), -1)

            def of_component(one):  # all images at once, since one factor per image would fill the memory
                white = jax.scipy.linalg.solve_triangular(one[1], (x - one[0]).T, lower=True)
                return jax.scipy.stats.norm.logpdf(white).sum(0) - jnp.log(jnp.diagonal(one[1])).sum()

            return jax.lax.map(of_component, components)[self._components(given, len(x)), jnp.arange(len(x))]

        return log_density
