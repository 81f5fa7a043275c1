"""Autoencoders with discrete latents.

A. van den Oord, O. Vinyals, K. Kavukcuoglu, Neural Discrete Representation Learning, 2017 (VQ-VAE); F. Mentzer et al.,
Finite Scalar Quantization, 2024 (FSQ).

Both papers train a strong prior over the codes afterwards, which is a run of another family here (`discrete`). The
prior of this family is a table of code probabilities at each position, independent of other positions and of
conditions. It gives the family its own samples and bound. The main use of the family is as a first stage for others.
"""

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
from genbench.families.spaces import FirstStage
from genbench.networks import encoder_and_decoder, quantisers
from genbench.ranges import COUNT, NOT_NEGATIVE, SHARE, Range, each

MOST_CODES = 2**16


@register('vq_vae')
class VQVAE(FirstStage, Family):
    """z(x) holds the code of the encoder's output at each position. p(x | z) is independent over pixels."""

    samplers = ('mean', 'direct')

    ranges = {
        'quantiser': Range(names=('codebook', 'fsq')),
        'codes': Range(2, MOST_CODES),
        'latent_channels': COUNT,
        'levels': each(Range(3, 256), fewest=1),
        'commitment': NOT_NEGATIVE,
        'codebook_decay': SHARE,
        'revive': SHARE,
        'observation_scale': NOT_NEGATIVE,
        'components': COUNT,
    }
    stops = observations.STOPS

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'quantiser': 'codebook',  # learned codes; or 'fsq', a fixed grid
            'codes': 128,  # number of codes in the codebook
            'latent_channels': 4,  # length of each code in the codebook
            'levels': (5, 5, 5),  # for 'fsq': levels of each number in a code
            'commitment': 0.25,  # weight β of the squared distance of vectors from their codes (VQ-VAE, equation 3)
            # Decay of the moving averages of the codes, and of their shares at each position. Averages of the encoder
            # are quantised with these codes, so train.ema_decay should be close to this.
            'codebook_decay': 0.99,
            # Replace codes whose share is below this fraction of an even share by vectors from the batch. 0: never, as
            # train.accumulate requires.
            'revive': 0.03,
            # or 'logistic', 'logistic_mixture', discretised; 'bernoulli', binary; or 'normal', 'laplace', densities
            'decoder': 'categorical',
            'components': 10,  # of the mixture
            'observation_scale': 0.0,  # σ of the normal, b of the Laplace, for values in [−1, 1]; 0: learned for each
        }
        return {'family': {**super().defaults()['family'], **options}, 'network': {'name': 'autoencoder'}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        options = config.family
        self.observation = observations.make(
            options.decoder, spec, options.observation_scale, components=options.components
        )
        self.learned = config.family.quantiser == 'codebook'
        if 'multipliers' not in config.network:
            raise UserError(f'network.name is {config.network.name!r}, which has no resolutions; use autoencoder.')
        height, width, _ = self.code_shape
        if self.learned and config.family.codes > (vectors := config.train.batch_size * height * width):
            raise UserError(
                f'family.codes is {config.family.codes:,}, but a batch has {vectors:,} vectors to make codes from. Use '
                'fewer codes or a larger train.batch_size.'
            )
        if (codes := math.prod(config.family.levels)) > MOST_CODES:
            raise UserError(f'family.levels make {codes:,} codes; use at most {MOST_CODES:,}.')

    def check_rows(self, count: int) -> None:
        height, width, _ = self.code_shape
        if not self.learned and self.num_codes > (vectors := count * height * width):
            raise UserError(f'family.levels make {self.num_codes:,} codes, but the training images have {vectors:,} '
                            'vectors to quantise, so some codes would stay unused; use fewer levels.')  # fmt: skip

    @property
    def code_shape(self) -> tuple[int, int, int]:
        height, width = (size >> (len(self.config.network.multipliers) - 1) for size in self.space.shape[:2])
        options = self.config.family
        return height, width, options.latent_channels if self.learned else len(options.levels)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        height, width, depth = self.code_shape
        outputs = self.observation.per_pixel
        pair = encoder_and_decoder(
            self.config.network, self.space, self.forms, rngs, codes=depth, latent=depth, outputs=outputs, pictures=True
        )
        return {**pair, 'quantiser': self._quantiser(height * width, depth)}

    def _quantiser(self, positions: int, depth: int) -> quantisers.Quantiser:
        options = self.config.family
        if self.learned:
            least = (options.revive or 1.0) / options.codes
            return quantisers.Codebook(positions, options.codes, depth, options.codebook_decay, least)
        return quantisers.Scalars(positions, options.levels, options.codebook_decay)

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Take the first codes from the fresh encoder's output on the first batch."""
        if self.learned:
            networks['quantiser'].start(self._encode(networks, batch['image'], self.given(batch)), key)

    @property
    def updates(self) -> tuple[Update, ...]:
        moved = self.learned and self.config.family.revive > 0  # the new codes are vectors from the whole batch
        return (Update('elbo', ('encoder', 'decoder'), self.loss, splits=not moved),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−log p(x | z) + β ‖z_e − code‖² in bits per dimension (VQ-VAE, equation 3).

        The distance is averaged over positions (end of section 3.2). Moving averages, not gradients, update the codes.
        """
        return self._losses(networks, batch, key, step)[:2]

    def _losses(
        self, networks: Networks, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Scalars, tuple[Array, Array, Array]]:
        """The loss, its parts, and what they are made of: the codes, the decoder's outputs, and x."""
        images, given, quantiser = batch['image'], self.given(batch), networks['quantiser']
        x = self.observation.observe(images, rng.named(batch['key'], 'bins'))
        z = self._encode(networks, self.observation.seen(images, x), given, rng.named(key, 'encoder'))
        index, code = quantiser.quantise(z)
        h = self._decode(networks, code, given, rng.named(key, 'decoder'))
        log_p = self.observation.log_prob(h, x)
        pull = jnp.zeros(())
        if self.learned:
            pull = jnp.square(z - jax.lax.stop_gradient(quantiser.lookup(index))).sum(-1).mean()
        log_prior = self._log_prior(networks, index)
        shares = quantiser.observe(z, index).mean(0)
        if self.learned and self.config.family.revive:
            quantiser.revive(jax.lax.stop_gradient(z), rng.named(key, 'revived'))
        bits = self.spec.bits_per_dim
        loss = bits(log_p.mean() - self.config.family.commitment * pull)
        perplexity = jnp.exp(-jax.scipy.special.xlogy(shares, shares).sum())  # of the codes in this batch
        told = {'loss': loss, 'elbo': bits((log_p + log_prior).mean()), 'perplexity': perplexity}
        return loss, told | self.observation.monitors(h), (code, h, x)

    def _encode(self, networks: Networks, images: Array, given: Given, key: Array | None = None) -> Array:
        """The encoder's output before quantisation, (batch, *code_shape)."""
        return networks['quantiser'].squash(networks['encoder'](self.observation.encode(images), given, key))

    def _decode(self, networks: Networks, code: Array, given: Given, key: Array | None = None) -> Array:
        """The decoder's outputs (batch, height, width, channels, outputs per value)."""
        h = networks['decoder'](code, given, key)
        return self.observation.arrange(h)

    def _log_observation(self, networks: Networks, code: Array, x: Array, given: Given, key: Array | None) -> Array:
        """log p(x | z), (batch,)."""
        return self.observation.log_prob(self._decode(networks, code, given, key), x)

    def _log_prior(self, networks: Networks, index: Array) -> Array:
        """log p(z), (batch,), of indices (batch, height, width)."""
        table = networks['quantiser'].log_prior()
        return jnp.take_along_axis(table[None], index.reshape(len(index), -1, 1), axis=2).sum((1, 2))

    def sample(self, networks: Networks, keys: Array, given: Given, sampler: Sampler) -> Samples:
        """Draw codes from the prior. 'mean' returns the mean (or logistic location) of p(x | z); 'direct' draws x."""
        quantiser, (height, width, _) = networks['quantiser'], self.code_shape
        table = quantiser.log_prior()
        index = jax.vmap(lambda key: jax.random.categorical(key, table))(rng.named(keys, 'codes'))
        h = self._decode(networks, quantiser.lookup(index.reshape(-1, height, width)), given)
        if sampler.name == 'mean':
            return Samples(self.observation.mean(h), 1)
        return Samples(self.observation.images(self.observation.draw(h, rng.named(keys, 'x'))), 1)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """log p(x) ≥ log p(z) + log p(x | z) holds for every z; z is the encoder's code here (VQ-VAE, section 3.2)."""

        def log_prob(networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
            quantiser = networks['quantiser']
            x = self.observation.observe(images, rng.named(keys, 'bins'))
            index = quantiser.assign(self._encode(networks, self.observation.seen(images, x), given))
            log_prior = self._log_prior(networks, index)
            log_p = self._log_observation(networks, quantiser.lookup(index), x, given, None)
            return {'log_prob': log_prior + log_p, 'prior': log_prior, 'observation': log_p}

        protocol = {**self.observation.protocol, 'prior': 'independent positions'}
        return (Likelihood('elbo', 'lower_bound', log_prob, protocol),)

    def posterior(self, networks: Networks, images: Array) -> tuple[Array, None]:
        """The encoder's output before quantisation; `decode` quantises it (Rombach et al. 2022, section 3.1)."""
        return self._encode(networks, images, None), None

    @property
    def num_codes(self) -> int:
        return self.config.family.codes if self.learned else math.prod(self.config.family.levels)

    def codes(self, networks: Networks, images: Array) -> Array:
        return networks['quantiser'].assign(self._encode(networks, images, None))

    def vectors(self, networks: Networks, index: Array) -> Array:
        return networks['quantiser'].lookup(index)

    def log_of_image(self, networks: Networks, index: Array, images: Array, keys: Array) -> Array:
        x = self.observation.observe(images, rng.named(keys, 'bins'))
        return self._log_observation(networks, networks['quantiser'].lookup(index), x, None, None)

    def decode(self, networks: Networks, z: Array) -> Array:
        quantiser = networks['quantiser']
        return self.observation.mean(self._decode(networks, quantiser.lookup(quantiser.assign(z)), None))
