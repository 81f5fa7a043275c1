"""Autoregressive models: p(x) = Π p(x_d | the pixels before d), the exact probability of a discrete image.

M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for Distribution Estimation, 2015 (MADE).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import observations
from genbench.families.base import (
    Array,
    Batch,
    Borrowed,
    Family,
    Likelihood,
    Networks,
    Sampler,
    Samples,
    Scalars,
    Update,
    register,
)
from genbench.networks import autoregressor


@register('autoregressive')
class Autoregressive(Family):
    """Each value has the distribution of `family.decoder`, with parameters that see the values before it.

    A network with several orderings is a mixture of as many models with equal weights (MADE, section 4.2). Training
    steps take them in turn.
    """

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {'decoder': 'categorical'}  # or 'bernoulli', 'static_bernoulli'; or 'logistic', discretised
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'made'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        decoder = config.family.decoder
        if decoder == 'normal':
            raise UserError('family.decoder is normal, a density; an autoregressive model of densities is '
                            'family.name=normalizing_flow with network.name=maf.')  # fmt: skip
        self.observation = observations.make(decoder, spec, 0.0)
        self.one_value = observations.make(decoder, dataclasses.replace(spec, shape=(1, 1, 1)), 0.0)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        outputs = self.observation.outputs
        return {'pixels': autoregressor(self.config.network, self.space, self.forms, rngs, outputs=outputs)}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('likelihood', ('pixels',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x) in bits per dimension, with the ordering of this step (MADE, equation 4)."""
        x = self.observation.observe(batch['image'], rng.named(batch['key'], 'bins'))
        log_p = self._log_prob(networks, x, self.given(batch), step % networks['pixels'].masks)
        loss = self.spec.bits_per_dim(log_p.mean())
        return loss, {'loss': loss}

    def _outputs(self, networks: Networks, x: Array, given: Given, mask: Array) -> Array:
        """What parametrises each value, (batch, height, width, channels, outputs)."""
        flat = self.observation.encode(x).reshape(len(x), -1)
        return networks['pixels'](flat, given, mask).reshape(*x.shape, -1)

    def _log_prob(self, networks: Networks, x: Array, given: Given, mask: Array) -> Array:
        return self.observation.log_prob(self._outputs(networks, x, given, mask), x)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        def log_prob(networks: Networks, images: Array, given: Given, keys: Array) -> Array:
            x = self.observation.observe(images, rng.named(keys, 'bins'))
            masks = jnp.arange(networks['pixels'].masks)
            found = jax.lax.map(lambda mask: self._log_prob(networks, x, given, mask), masks)
            return jax.nn.logsumexp(found, axis=0) - math.log(len(masks))

        protocol = {**self.observation.protocol, 'orderings': self._orderings}
        return (Likelihood('autoregression', 'exact', log_prob, protocol),)

    @property
    def _orderings(self) -> int:
        return self.config.network.get('masks', 1)

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Value after value. Of several orderings an image draws one; all are computed, and its own is kept."""
        count = networks['pixels'].masks
        orders = jnp.argsort(jnp.asarray(networks['pixels'].degrees[0]), axis=1)
        chosen = rng.integers(keys, 'ordering', 0, count)

        def one(mask: Array) -> Array:
            def draw(place: Array, x: Array) -> Array:
                index = orders[mask, place]
                h = self._outputs(networks, x, given, mask).reshape(len(x), self.spec.num_dims, -1)[:, index]
                value = self.one_value.draw(h[:, None, None, None], rng.numbered(rng.named(keys, 'x'), place))
                flat = x.reshape(len(x), -1).at[:, index].set(value[:, 0, 0, 0])
                return flat.reshape(x.shape)

            start = jnp.zeros((len(keys), *self.spec.shape), jnp.int32)
            return jax.lax.fori_loop(0, self.spec.num_dims, draw, start)

        drawn = jax.lax.map(one, jnp.arange(count))
        return Samples(drawn[chosen, jnp.arange(len(keys))], self.evaluations(sampler))

    def evaluations(self, sampler: Sampler) -> int:
        return self.spec.num_dims * self._orderings
