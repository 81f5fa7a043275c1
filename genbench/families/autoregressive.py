"""Autoregressive models: p(x) = Π p(x_d | the pixels before d), the exact probability of a discrete image.

M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for Distribution Estimation, 2015 (MADE);
T. Salimans, A. Karpathy, X. Chen, D. Kingma, PixelCNN++, 2017.
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
from genbench.networks import autoregressor, values_at_once
from genbench.networks.in_order import InOrder
from genbench.ranges import COUNT


@register('autoregressive')
class Autoregressive(Family):
    """Each step draws a value, or a pixel, from the distribution of `family.decoder`, whose parameters see the others.

    A network with several orderings is a mixture of as many models with equal weights (MADE, section 4.2). Training
    steps take them in turn.
    """

    ranges = {'components': COUNT}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            # or '(static_, threshold_)bernoulli'; or 'logistic', 'logistic_mixture', discretised. The mixture couples
            # the channels of a pixel; under a network that predicts pixels, the others make them independent.
            'decoder': 'categorical',
            'components': 10,  # of the mixture
        }
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'made'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        decoder, components = config.family.decoder, config.family.components
        if decoder == 'normal':
            raise UserError('family.decoder is normal, a density; an autoregressive model of densities is '
                            'family.name=normalizing_flow with network.name=maf.')  # fmt: skip
        if decoder == 'grey_bernoulli':
            raise UserError('family.decoder is grey_bernoulli, whose network would see what it predicts; '
                            'use bernoulli or static_bernoulli.')  # fmt: skip
        self.observation = observations.make(decoder, spec, 0.0, components)
        together = values_at_once(config.network, self.space)
        if self.observation.coupled and together < spec.shape[2]:
            raise UserError(f'family.decoder is {decoder}, which couples the channels of a pixel, but network.name='
                            f'{config.network.name} predicts them one by one; use network.name=pixel_cnn.')  # fmt: skip
        self.steps = spec.num_dims // together
        self.one_step = observations.make(decoder, dataclasses.replace(spec, shape=(1, 1, together)), 0.0, components)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        outputs, levels = self.one_step.per_pixel, self.spec.levels
        network: Any = autoregressor(self.config.network, self.space, self.forms, rngs, outputs=outputs, levels=levels)
        return {'pixels': network}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        network, x = networks['pixels'], self.observation.observe(batch['image'], rng.named(batch['key'], 'bins'))
        network.fit(self._seen(network, x), self.given(batch), key)

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('likelihood', ('pixels',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x) in bits per dimension, with the ordering of this step (MADE, equation 4)."""
        x = self.observation.observe(batch['image'], rng.named(batch['key'], 'bins'))
        mask = step % networks['pixels'].masks
        log_p = self._log_prob(networks, x, self.given(batch), mask, rng.named(key, 'network'))
        loss = self.spec.bits_per_dim(log_p.mean())
        return loss, {'loss': loss}

    def _seen(self, network: InOrder, x: Array) -> Array:
        return x if network.discrete else self.observation.encode(x)

    def _log_prob(self, networks: Networks, x: Array, given: Given, mask: Array, key: Array | None = None) -> Array:
        network = networks['pixels']
        h = network(self._seen(network, x), given, mask, key)
        return self.observation.log_prob(self.observation.arrange(h), x)

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
        """Step after step. Of several orderings an image draws one; all are computed, and its own is kept."""
        network, count = networks['pixels'], len(keys)
        chosen = rng.integers(keys, 'ordering', 0, network.masks)

        def one(mask: Array) -> Array:
            places = network.order(mask)

            def draw(number: Array, carry: Any) -> Any:
                x, kept = carry
                h, kept = network.step(self._seen(network, x), number, kept, given, mask)
                value = self.one_step.draw(self.one_step.arrange(h), rng.numbered(rng.named(keys, 'x'), number))
                x = x.reshape(count, self.steps, -1).at[:, places[number]].set(value.reshape(count, -1))
                return x.reshape(count, *self.spec.shape), kept

            start = jnp.zeros((count, *self.spec.shape), jnp.int32), network.start(count)
            return jax.lax.fori_loop(0, self.steps, draw, start)[0]

        drawn = jax.lax.map(one, jnp.arange(network.masks))
        return Samples(drawn[chosen, jnp.arange(count)], self.evaluations(sampler))

    def evaluations(self, sampler: Sampler) -> int:
        """One for each step of each ordering, also where a network keeps what it computed for earlier steps."""
        return self.steps * self._orderings
