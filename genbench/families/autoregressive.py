"""Autoregressive models: p(x) = Π p(x_d | the pixels before d), the exact probability of a discrete image or of codes.

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
    Likelihood,
    Networks,
    Sampler,
    Samples,
    Scalars,
    Update,
    register,
)
from genbench.families.discrete import Discrete
from genbench.networks import autoregressor, values_at_once
from genbench.ranges import COUNT


@register('autoregressive')
class Autoregressive(Discrete):
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
        decoder, components, spec = config.family.decoder, config.family.components, self.integers.spec
        if decoder in ('normal', 'laplace'):
            raise UserError(f'family.decoder is {decoder}, a density; an autoregressive model of densities is '
                            'family.name=normalizing_flow with network.name=maf.')  # fmt: skip
        if config.family.tokeniser and (decoder != 'categorical' or config.network.name == 'made'):
            raise UserError(f'Codes have no order: a model of {spec.name} needs family.decoder=categorical and '
                            'network.name=pixel_transformer or pixel_cnn.')  # fmt: skip
        if decoder == 'grey_bernoulli':
            raise UserError('family.decoder is grey_bernoulli, whose network would see what it predicts; '
                            'use bernoulli or static_bernoulli.')  # fmt: skip
        self.observation = observations.make(decoder, spec, 0.0, components)
        together = values_at_once(config.network, spec)
        if self.observation.coupled and together < spec.shape[2]:
            raise UserError(f'family.decoder is {decoder}, which couples the channels of a pixel, but network.name='
                            f'{config.network.name} predicts them one by one; use network.name=pixel_cnn.')  # fmt: skip
        self.steps = spec.num_dims // together
        self.one_step = observations.make(decoder, dataclasses.replace(spec, shape=(1, 1, together)), 0.0, components)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        spec, outputs, network = self.integers.spec, self.one_step.per_pixel, self.config.network
        made: Any = autoregressor(
            network, spec, self.forms, rngs, outputs=outputs, levels=spec.levels, depth=self.integers.depth
        )
        return {'pixels': made}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        x = self._observed(networks, batch['image'], batch['key'])
        networks['pixels'].fit(self._seen(networks, x), self.given(batch), key)

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('likelihood', ('pixels',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x) in bits per dimension of x, with the ordering of this step (MADE, equation 4)."""
        x = self._observed(networks, batch['image'], batch['key'])
        mask = step % networks['pixels'].masks
        log_p = self._log_prob(networks, x, self.given(batch), mask, rng.named(key, 'network'))
        loss = self.integers.spec.bits_per_dim(log_p.mean())
        return loss, {'loss': loss}

    def _observed(self, networks: Networks, images: Array, keys: Array) -> Array:
        return self.observation.observe(self.integers.encode(networks, images), rng.named(keys, 'bins'))

    def _seen(self, networks: Networks, x: Array) -> Array:
        """x as the network takes it. Binary pixels are encoded by the observation model."""
        if networks['pixels'].discrete:
            return x
        return self.integers.vectors(networks, x) if self.config.family.tokeniser else self.observation.encode(x)

    def _log_prob(self, networks: Networks, x: Array, given: Given, mask: Array, key: Array | None = None) -> Array:
        h = networks['pixels'](self._seen(networks, x), given, mask, key)
        return self.observation.log_prob(self.observation.arrange(h), x)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        def log_prob(networks: Networks, images: Array, given: Given, keys: Array) -> Array:
            x = self._observed(networks, images, keys)
            masks = jnp.arange(networks['pixels'].masks)
            found = jax.lax.map(lambda mask: self._log_prob(networks, x, given, mask), masks)
            found = jax.nn.logsumexp(found, axis=0) - math.log(len(masks))
            return found + self.integers.log_rest(networks, x, images, keys)

        protocol = {**self.observation.protocol, 'orderings': self._orderings, **self.integers.protocol}
        return (Likelihood(self.integers.method('autoregression'), self.integers.kind, log_prob, protocol),)

    @property
    def _orderings(self) -> int:
        return self.config.network.get('masks', 1)

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Step after step. Of several orderings an image draws one; all are computed, and its own is kept."""
        network, count, shape = networks['pixels'], len(keys), self.integers.spec.shape
        chosen = rng.integers(keys, 'ordering', 0, network.masks)

        def one(mask: Array) -> Array:
            places = network.order(mask)

            def draw(number: Array, carry: Any) -> Any:
                x, kept = carry
                h, kept = network.step(self._seen(networks, x), number, kept, given, mask)
                value = self.one_step.draw(self.one_step.arrange(h), rng.numbered(rng.named(keys, 'x'), number))
                x = x.reshape(count, self.steps, -1).at[:, places[number]].set(value.reshape(count, -1))
                return x.reshape(count, *shape), kept

            start = jnp.zeros((count, *shape), jnp.int32), network.start(count)
            return jax.lax.fori_loop(0, self.steps, draw, start)[0]

        drawn = jax.lax.map(one, jnp.arange(network.masks))
        images = self.integers.decode(networks, drawn[chosen, jnp.arange(count)])
        return Samples(images, self.evaluations(sampler))

    def evaluations(self, sampler: Sampler) -> int:
        """One for each step of each ordering, also where a network keeps what it computed for earlier steps."""
        return self.steps * self._orderings
