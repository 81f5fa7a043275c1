"""The autoencoder of latent diffusion: a weak KL term, a perceptual distance and a discriminator of patches.

R. Rombach, A. Blattmann, D. Lorenz, P. Esser, B. Ommer, High-Resolution Image Synthesis with Latent Diffusion Models,
2022 (section 3.1 and appendix G: KL-reg), and its official code.

The loss is that of `vae` with a small β, plus the perceptual distance and the weighted loss of a GAN's generator. The
code's (|x − x̂| + LPIPS) / exp(s) + s with one learned s is −log p of a Laplace distribution with the scale b = exp(s),
up to log 2.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import evidence, observations
from genbench.families.adversarial_stage import AdversarialStage
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.vae import VAE


class Scale(nnx.Module):
    """The logarithm of the one scale that all values of all images have."""

    def __init__(self, start: float):
        self.log = nnx.Param(jnp.log(jnp.asarray(start)))


@register('kl_autoencoder')
class KLAutoencoder(AdversarialStage, VAE):
    """q(z | x) = N(μ(x), diag σ²(x)) at the positions of a grid, close to no prior, for others to model."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        found = super().defaults()
        options = {
            'latent_channels': 4,
            'decoder': 'laplace',
            'observation_scale': 1.0,  # b, for values in [−1, 1]; with `learn_scale`, where it starts
            'learn_scale': True,  # learn b, one number; False: it is fixed
            'beta': 1e-6,  # of the KL term in nats, beside −log p in nats
            'adversarial_weight': 0.5,
        }
        return {**found, 'family': {**found['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        options = config.family
        if not options.latent_channels:
            raise UserError('family.latent_channels is 0, but these latents are pictures; set it to 4.')
        for key, only in {'decoder': 'laplace', 'objective': 'elbo', 'draws': 1, 'pseudo_inputs': 0}.items():
            if options[key] != only:
                raise UserError(f'family.{key} is {options[key]!r}, but a KL autoencoder has {only!r} there; leave it '
                                'out.')  # fmt: skip
        if options.learn_scale:
            self.observation = observations.OneScale(spec, options.observation_scale)

    @property
    def unit(self) -> float:
        """The code's loss is in nats: the sum over an image's values, divided by the scale and averaged over images."""
        return self.spec.bits_per_dim(-1.0)

    @property
    def trained(self) -> tuple[str, ...]:
        return (*super().trained, 'scale') if self.config.family.learn_scale else super().trained

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        options = self.config.family
        own = {'scale': Scale(options.observation_scale)} if options.learn_scale else {}
        return {**super().networks(rngs), **own}

    def _losses(
        self, networks: Networks, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Scalars, tuple[Array, Array, Array]]:
        """−log p(x | z) + β KL in bits per dimension, its parts, and z, the decoder's outputs and x."""
        images, given, options, bits = batch['image'], self.given(batch), self.config.family, self.spec.bits_per_dim
        x = self.observation.observe(images, rng.named(batch['key'], 'bins'))
        mean, log_std = self._encode(networks, images, given, rng.named(key, 'encoder'))
        z = mean + jnp.exp(log_std) * rng.normal(batch['key'], 'z', mean.shape[1:])
        h = self._decode(networks, z, given, rng.named(key, 'decoder'))
        log_p = self.observation.log_prob(h, x).mean()
        kl, cost = evidence.divergence(mean, log_std, options.free_nats)
        loss = bits(log_p - evidence.annealed(options.beta, options.kl_warmup, step) * cost)
        scale = self.observation.spread(h).mean()
        return loss, {'loss': loss, 'elbo': bits(log_p - kl), 'kl': -bits(kl), 'scale': scale}, (z, h, x)

    def _decode(self, networks: Networks, z: Array, given: Given, key: Array | None = None) -> Array:
        h = super()._decode(networks, z, given, key)
        one = self.observation
        return one.joined(h, networks['scale'].log[...]) if isinstance(one, observations.OneScale) else h

    def _reconstructions(self, networks: Networks, batch: Batch) -> Array:
        given = self.given(batch)
        mean, log_std = self._encode(networks, batch['image'], given)
        z = mean + jnp.exp(log_std) * rng.normal(batch['key'], 'z', mean.shape[1:])
        return self._decode(networks, z, given)[..., 0]
