"""Variational autoencoder.

D. Kingma, M. Welling, Auto-Encoding Variational Bayes, 2014 (VAE); Y. Burda, R. Grosse, R. Salakhutdinov, Importance
Weighted Autoencoders, 2016 (IWAE).
"""

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
    LatentModel,
    Likelihood,
    Networks,
    Sampler,
    Scalars,
    Update,
    register,
)
from genbench.families.spaces import FirstStage
from genbench.networks import encoder_and_decoder
from genbench.ranges import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, one_of


@register('vae')
class VAE(FirstStage, Family):
    """q(z | x) = N(μ(x), diag σ²(x)), p(z) = N(0, I), and p(x | z) independent over pixels and channels."""

    samplers = ('mean', 'direct')

    ranges = {
        'latent': COUNT,
        'latent_channels': COUNT_OR_NONE,
        'observation_scale': NOT_NEGATIVE,
        'beta': NOT_NEGATIVE,
        'objective': one_of('elbo', 'iwae'),
        'draws': COUNT,
    }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'latent': 16,  # number of dimensions of z
            'latent_channels': 0,  # above 0: z is a picture with this many channels at the encoder's lowest resolution
            'decoder': 'categorical',  # or '(static_)bernoulli'; or 'logistic', discretised; or 'normal', a density
            'observation_scale': 0.0,  # σ of the normal, for values in [−1, 1]; 0: learned for each value
            'beta': 1.0,  # weight of the KL term in training (small for a first stage); the reported bound uses 1
            'objective': 'elbo',  # with its KL in closed form; or 'iwae', the bound from `draws` importance weights
            'draws': 1,  # draws of z per image in training, the k of IWAE
        }
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'autoencoder'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.observation = observations.make(config.family.decoder, spec, config.family.observation_scale)
        if config.family.objective == 'iwae' and config.family.beta != 1:
            raise UserError(f'family.beta is {config.family.beta}, which objective=iwae ignores; set it to 1.')

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        latent = self.config.family.latent_channels or self.config.family.latent
        return encoder_and_decoder(
            self.config.network, self.space, self.forms, rngs, codes=2 * latent, latent=latent,
            outputs=self.space.shape[2] * self.observation.outputs, pictures=self.config.family.latent_channels > 0,
        )  # fmt: skip

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('elbo', ('encoder', 'decoder'), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−ELBO in bits per dimension (VAE, equation 10) with the KL term weighted by β, or IWAE's bound (equation 8).

        With several draws of z, the ELBO uses the mean of log p(x | z).
        """
        images, given, draws = batch['image'], self.given(batch), self.config.family.draws
        x = self.observation.observe(images, rng.named(batch['key'], 'bins'))
        seen = self.observation.seen(images, x)
        mean, log_std = self._encode(networks, seen, given, rng.named(key, 'encoder'))
        noise = rng.normal(batch['key'], 'z', (draws, *mean.shape[1:]))
        z = mean[:, None] + jnp.exp(log_std)[:, None] * noise
        if draws > 1:
            x, given = jax.tree.map(lambda rows: jnp.repeat(rows, draws, 0), (x, given))
        flat = z.reshape(-1, *mean.shape[1:])
        log_p = self._log_observation(networks, flat, x, given, rng.named(key, 'decoder')).reshape(-1, draws)
        bits = self.spec.bits_per_dim
        if self.config.family.objective == 'iwae':
            log_ratio = ((jnp.square(noise) - jnp.square(z)) / 2 + log_std[:, None]).reshape(-1, draws, flat[0].size)
            log_weights = log_p + log_ratio.sum(-1)
            loss = bits((jax.nn.logsumexp(log_weights, axis=1) - jnp.log(draws)).mean())
            return loss, {'loss': loss, 'elbo': bits(log_weights.mean()), 'kl': bits(log_ratio.sum(-1).mean())}
        kl, log_p = _summed(jnp.square(mean) / 2 + jnp.exp(2 * log_std) / 2 - 0.5 - log_std), log_p.mean(1)
        loss = bits((log_p - self.config.family.beta * kl).mean())
        return loss, {'loss': loss, 'elbo': bits((log_p - kl).mean()), 'kl': -bits(kl.mean())}

    def _encode(self, networks: Networks, images: Array, given: Given, key: Array | None = None) -> tuple[Array, Array]:
        """Mean and log standard deviation of q(z | x), each (batch, *latent_shape)."""
        mean, log_std = jnp.split(networks['encoder'](self.observation.encode(images), given, key), 2, axis=-1)
        return mean, jnp.clip(log_std, -7, 7)

    def _decode(self, networks: Networks, z: Array, given: Given, key: Array | None = None) -> Array:
        """The decoder's outputs (batch, height, width, channels, outputs per value)."""
        h = networks['decoder'](z, given, key)
        return h.reshape(len(z), *self.spec.shape, self.observation.outputs)

    def _log_observation(self, networks: Networks, z: Array, x: Array, given: Given, key: Array | None = None) -> Array:
        """log p(x | z), (batch,)."""
        return self.observation.log_prob(self._decode(networks, z, given, key), x)

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
        """'mean' returns the mean of p(x | z) (for a logistic, its location); 'direct' draws from p(x | z)."""
        h = self._decode(networks, latents, given)
        if sampler.name == 'mean':
            return self.observation.mean(h)
        return self.observation.images(self.observation.draw(h, rng.named(keys, 'x')))

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        def bound(draws):
            def log_prob(networks, images, given, keys):
                return self._importance_bound(networks, images, given, keys, draws)

            name = 'elbo' if draws == 1 else f'iwae_{draws}'
            return Likelihood(name, 'lower_bound', log_prob, {**self.observation.protocol, 'draws': draws})

        return tuple(bound(draws) for draws in dict.fromkeys((1, self.config.evaluation.iwae_draws)))

    def _importance_bound(self, networks: Networks, images: Array, given: Given, keys: Array, draws: int) -> Array:
        """log (1/K) Σ p(x, z_k) / q(z_k | x), (batch,) (IWAE, equation 8). K = 1 gives the ELBO."""
        x = self.observation.observe(images, rng.named(keys, 'bins'))
        mean, log_std = self._encode(networks, self.observation.seen(images, x), given)
        keys_z = rng.named(keys, 'draws')

        def add(index, found):  # the largest weight and the sum relative to it: memory holds only one draw
            noise = rng.normal(rng.numbered(keys_z, index), 'z', mean.shape[1:])
            z = mean + jnp.exp(log_std) * noise
            log_ratio = _summed((jnp.square(noise) - jnp.square(z)) / 2 + log_std)  # log p(z) − log q(z | x)
            log_weight = self._log_observation(networks, z, x, given) + log_ratio
            largest = jnp.maximum(found[0], log_weight)
            total = found[1] * jnp.exp(found[0] - largest) + jnp.exp(log_weight - largest)
            return largest, total

        nothing = jnp.full(len(images), -jnp.inf), jnp.zeros(len(images))
        largest, total = jax.lax.fori_loop(0, draws, add, nothing)
        return largest + jnp.log(total / draws)

    def latent_model(self, networks: Networks, given: Given) -> LatentModel:
        options = self.config.family
        return self.observation.latent_model(
            lambda z: self._decode(networks, z, given), self.latent_shape, decoder=options.decoder
        )

    @property
    def observed(self) -> Mapping[str, Any]:
        return {**self.observation.protocol, 'first_stage_decoder': self.config.family.decoder}

    def posterior(self, networks: Networks, images: Array) -> tuple[Array, Array]:
        mean, log_std = self._encode(networks, images, None)
        return mean, 2 * log_std

    def decode(self, networks: Networks, z: Array) -> Array:
        return self.observation.mean(self._decode(networks, z, None))

    def log_likelihood(self, networks: Networks, z: Array, images: Array, keys: Array) -> Array:
        return self._log_observation(networks, z, self.observation.observe(images, rng.named(keys, 'bins')), None)


def _summed(values: Array) -> Array:
    """The sum over all axes except the batch axis."""
    return values.reshape(len(values), -1).sum(-1)
