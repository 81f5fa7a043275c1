"""Variational autoencoder.

D. Kingma, M. Welling, Auto-Encoding Variational Bayes, 2014 (VAE); Y. Burda, R. Grosse, R. Salakhutdinov, Importance
Weighted Autoencoders, 2016 (IWAE). `evidence` has the papers of its other objectives and of the VampPrior.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import evidence
from genbench.families.base import Array, Batch, Borrowed, LatentModel, Networks, Sampler, Scalars, Update, register
from genbench.families.inferred import Inferred, monitors
from genbench.families.spaces import FirstStage
from genbench.networks import encoder_and_decoder
from genbench.ranges import COUNT, COUNT_OR_NONE

GREY = ('bernoulli', 'static_bernoulli', 'grey_bernoulli')  # decoders whose pixels are on as often as they are bright


@register('vae')
class VAE(FirstStage, Inferred):
    """q(z | x) = N(μ(x), diag σ²(x)), p(z) = N(0, I) or a VampPrior, and p(x | z) independent over pixels."""

    ranges = {'latent': COUNT, 'latent_channels': COUNT_OR_NONE, 'draws': COUNT, **evidence.RANGES}
    stops = {**Inferred.stops, **evidence.STOPS}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'latent': 16,  # number of dimensions of z
            'latent_channels': 0,  # above 0: z is a picture with this many channels at the encoder's lowest resolution
            'draws': 1,  # draws of z per image in training, the k of IWAE
            'mean_image': False,  # start the decoder's biases at the logits of the mean of `train.initial_images`
            **evidence.DEFAULTS,
        }
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'autoencoder'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        evidence.check(config.family, config.train.accumulate, self.conditional)
        if config.family.mean_image and (config.family.decoder not in GREY or config.network.name != 'mlp'):
            raise UserError('family.mean_image is for network.name=mlp and a decoder whose pixels are on as often as '
                            f'they are bright, {" or ".join(GREY)}; set it to False.')  # fmt: skip
        if config.family.mean_image and not config.train.initial_images:
            raise UserError('family.mean_image starts at the mean of train.initial_images, which is 0; set it to the '
                            'number of training images, or to some thousands.')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        latent = self.config.family.latent_channels or self.config.family.latent
        pseudo = self.config.family.pseudo_inputs
        own = {'prior': evidence.PseudoInputs(pseudo, self.space.shape)} if pseudo else {}
        return own | encoder_and_decoder(
            self.config.network, self.space, self.forms, rngs, codes=2 * latent, latent=latent,
            outputs=self.observation.per_pixel, pictures=self.config.family.latent_channels > 0,
        )  # fmt: skip

    @property
    def updates(self) -> tuple[Update, ...]:
        prior = ('prior',) if self.config.family.pseudo_inputs else ()
        return (Update('elbo', ('encoder', 'decoder', *prior), self.loss),)

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        if self.config.family.mean_image:
            networks['decoder'].start(self.observation.logits(batch['image']))
        if 'prior' in networks:
            x = self.observation.observe(batch['image'], rng.named(batch['key'], 'bins'))
            networks['prior'].start(self.observation.encode(self.observation.seen(batch['image'], x)), key)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−ELBO in bits per dimension (VAE, equation 10) with the KL term weighted by β, or a bound from weights.

        With several draws of z, the ELBO uses the mean of log p(x | z), and of log p(z) under a VampPrior.
        """
        images, given, options = batch['image'], self.given(batch), self.config.family
        draws, objective, bits = options.draws, options.objective, self.spec.bits_per_dim
        x = self.observation.observe(images, rng.named(batch['key'], 'bins'))
        seen = self.observation.seen(images, x)
        mean, log_std = self._encode(networks, seen, given, rng.named(key, 'encoder'))
        noise = rng.normal(batch['key'], 'z', (draws, *mean.shape[1:]))
        z = mean[:, None] + jnp.exp(log_std)[:, None] * noise
        if draws > 1:
            x, given = jax.tree.map(lambda rows: jnp.repeat(rows, draws, 0), (x, given))

        def log_weights(z: Array) -> tuple[Array, tuple[Array, Scalars]]:
            """log p(x, z) − log q(z | x) and its part log p(z) − log q(z | x), each (batch, draws); and monitors."""
            flat = z.reshape(-1, *mean.shape[1:])
            log_p, told = self._observed(networks, flat, x, given, rng.named(key, 'decoder'))
            log_q = evidence.log_posterior(z, mean, log_std, noise, objective in evidence.STOPPED)
            log_ratio = self._log_prior(networks, flat).reshape(-1, draws) - log_q
            return log_p.reshape(-1, draws) + log_ratio, (log_ratio, told)

        found, (log_weight, (log_ratio, used)) = evidence.bound(objective, log_weights, z)
        kl = cost = -log_ratio.mean()
        if objective == 'elbo':
            log_p = (log_weight - log_ratio).mean()
            if not options.pseudo_inputs:
                kl, cost = evidence.divergence(mean, log_std, options.free_nats)
            found = log_p - evidence.annealed(options.beta, options.kl_warmup, step) * cost
            log_weight = log_p - kl
        loss, units = bits(found.mean()), evidence.divergences(mean, log_std)
        if not options.pseudo_inputs:
            used |= monitors(mean.reshape(len(mean), -1), units.reshape(len(mean), -1))
        if options.beta >= 1 and not (options.kl_warmup or options.free_nats):  # a free KL term asks for narrow ones
            used['posteriors_at_limit'] = (log_std <= evidence.NARROWEST).mean()
        return loss, {'loss': loss, 'elbo': bits(log_weight.mean()), 'kl': -bits(kl), **used}

    def _log_prior(self, networks: Networks, z: Array) -> Array:
        """log p(z) + ½ log 2π per dimension, (batch,)."""
        if 'prior' not in networks:
            return -evidence.summed(jnp.square(z)) / 2
        return evidence.log_mixture(z, *self._components(networks))

    def _components(self, networks: Networks) -> tuple[Array, Array]:
        """Means and log standard deviations of a VampPrior's normals, (K, *latent_shape)."""
        lowest = self.observation.encode(jnp.zeros(()))
        return self._posterior(networks, networks['prior'](lowest), None)

    def _encode(self, networks: Networks, images: Array, given: Given, key: Array | None = None) -> tuple[Array, Array]:
        """Mean and log standard deviation of q(z | x), each (batch, *latent_shape)."""
        return self._posterior(networks, self.observation.encode(images), given, key)

    def _posterior(self, networks: Networks, encoded: Array, given: Given, key: Array | None = None):
        mean, log_std = jnp.split(networks['encoder'](encoded, given, key), 2, axis=-1)
        return mean, jnp.clip(log_std, evidence.NARROWEST, 7)

    def _decode(self, networks: Networks, z: Array, given: Given, key: Array | None = None) -> Array:
        """The decoder's outputs (batch, height, width, channels, outputs per value)."""
        h = networks['decoder'](z, given, key)
        return self.observation.arrange(h)

    def _observed(self, networks: Networks, z: Array, x: Array, given: Given, key: Array | None = None):
        """log p(x | z), (batch,), and scalars that a loss reports of it."""
        h = self._decode(networks, z, given, key)
        return self.observation.log_prob(h, x), self.observation.monitors(h)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        options = self.config.family
        if not options.latent_channels:
            return (options.latent,)
        height, width = (size >> (len(self.config.network.multipliers) - 1) for size in self.space.shape[:2])
        return height, width, options.latent_channels

    @property
    def code_shape(self) -> tuple[int, ...]:
        return self.latent_shape

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        if 'prior' in networks:  # latents become noise around the mean of a component
            mean, log_std = self._components(networks)
            chosen = rng.integers(keys, 'component', 0, len(mean))
            latents = mean[chosen] + jnp.exp(log_std[chosen]) * latents
        return super().generate(networks, latents, keys, given, sampler)

    def _weigh(
        self, networks: Networks, seen: Array, x: Array, given: Given
    ) -> Callable[[Array], tuple[Array, Array, Array]]:
        mean, log_std = self._encode(networks, seen, given)

        def weigh(keys: Array) -> tuple[Array, Array, Array]:
            noise = rng.normal(keys, 'z', mean.shape[1:])
            z = mean + jnp.exp(log_std) * noise
            log_ratio = self._log_prior(networks, z) + evidence.summed(jnp.square(noise) / 2 + log_std)
            log_weight = self._observed(networks, z, x, given)[0] + log_ratio
            flat = len(mean), -1
            return log_weight, mean.reshape(flat), evidence.divergences(mean, log_std).reshape(flat)

        return weigh

    def latent_model(self, networks: Networks, given: Given) -> LatentModel | None:
        return None if self.config.family.pseudo_inputs else super().latent_model(networks, given)

    def units(
        self, networks: Networks, images: Array, given: Given, keys: Array, draws: Array
    ) -> tuple[Array, Array] | None:
        return None if self.config.family.pseudo_inputs else super().units(networks, images, given, keys, draws)

    @property
    def observed(self) -> Mapping[str, Any]:
        return {**self.observation.protocol, 'first_stage_decoder': self.config.family.decoder}

    def posterior(self, networks: Networks, images: Array) -> tuple[Array, Array]:
        mean, log_std = self._encode(networks, images, None)
        return mean, 2 * log_std

    def decode(self, networks: Networks, z: Array) -> Array:
        return self.observation.mean(self._decode(networks, z, None))

    def log_likelihood(self, networks: Networks, z: Array, images: Array, keys: Array) -> Array:
        return self._observed(networks, z, self.observation.observe(images, rng.named(keys, 'bins')), None)[0]
