"""Generative adversarial networks.

I. Goodfellow et al., Generative Adversarial Nets, 2014; L. Mescheder, A. Geiger, S. Nowozin, Which Training Methods
for GANs do actually Converge?, 2018 (R1); M. Arjovsky, S. Chintala, L. Bottou, Wasserstein GAN, 2017; I. Gulrajani et
al., Improved Training of Wasserstein GANs, 2017 (WGAN-GP); J. Lim, J. Ye, Geometric GAN, 2017 (hinge); Z. Lin et al.,
PacGAN: The power of two samples in generative adversarial networks, 2018 (packs).

The penalties follow the papers' equations. Mescheder et al.'s code omits the ½ of R1, so its weight of 10 is γ = 20
here. Gulrajani et al. use five critic steps (`critic_steps`), λ = 10, and Adam with decays 0 and 0.9. They also give
the generator twice as many images as the critic; no config key sets this.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import (
    Array,
    Batch,
    Borrowed,
    Family,
    LatentModel,
    Networks,
    Sampler,
    Scalars,
    Update,
    register,
)
from genbench.families.observations import Normal
from genbench.networks import NORMALISED, generator_and_discriminator, latent_size
from genbench.networks.gradients import value_and_input_gradient
from genbench.ranges import COUNT, NOT_NEGATIVE

# The discriminator's loss on real logits, its loss on fake logits, and the generator's loss on fake logits: Goodfellow
# et al. 2014, section 3; Arjovsky et al. 2017, equations 2 and 3; Lim & Ye 2017, section 4.
LOSSES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], Callable[[Array], Array]]] = {
    'non_saturating': (lambda real: nnx.softplus(-real), nnx.softplus, lambda fake: nnx.softplus(-fake)),
    'wasserstein': (jnp.negative, jnp.asarray, jnp.negative),
    'hinge': (lambda real: nnx.relu(1 - real), lambda fake: nnx.relu(1 + fake), jnp.negative),
}
PENALTIES = ('r1', 'gradient_penalty', 'none')


@register('gan')
class GAN(Family):
    """Each step trains the discriminator first, then the generator. There is no likelihood."""

    ranges = {
        'penalty_weight': NOT_NEGATIVE, 'critic_steps': COUNT, 'discriminator_learning_rate': NOT_NEGATIVE,
        'pack': COUNT,
    }  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'loss': 'non_saturating',  # or 'wasserstein', 'hinge'
            'penalty': 'r1',  # or 'gradient_penalty' (WGAN-GP), 'none'
            'penalty_weight': 1.0,  # γ of R1, λ of WGAN-GP (10 in the paper)
            'critic_steps': 1,  # discriminator updates per generator update
            'discriminator_learning_rate': 0.0,  # 0: the same as the generator's
            'pack': 1,  # images that the discriminator judges together, all real or all fake (PacGAN)
        }
        return {
            'family': {**super().defaults()['family'], **options},
            'network': {'name': 'resnet'},
            'optimizer': {'b1': 0.0, 'b2': 0.99, 'clip_norm': 0.0, 'learning_rate': 2e-4},
        }

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        for key, known in (('loss', LOSSES), ('penalty', PENALTIES)):
            name = config.family[key]
            if name not in known:
                raise UserError(f'A GAN has no {key} {name!r} (family.{key}). {did_you_mean(name, known)}')
        pack, size = config.family.pack, config.train.batch_size // config.train.accumulate
        if pack > 1 and (self.conditional or size % pack):
            why = 'has no common condition' if self.conditional else f'does not divide a (micro-)batch of {size}'
            raise UserError(f'family.pack is {pack}, and a pack of so many images {why}; set it to 1.')

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return generator_and_discriminator(self.config.network, self.space, self.forms, rngs, self.config.family.pack)

    @property
    def updates(self) -> tuple[Update, ...]:
        rate, every = self.config.family.discriminator_learning_rate, self.config.family.critic_steps
        options = {'learning_rate': rate} if rate else {}
        return (
            Update('discriminator', ('discriminator',), self.discriminator_loss, options),
            Update('generator', ('generator',), self.generator_loss, every=every),
        )

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('generator',)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The discriminator's loss on real and fake images, plus its weighted penalty.

        Real images are dequantised uniformly. Otherwise their grid of levels would give them away.
        """
        given = self.given(batch)
        real = self._packed(self.space.encode(networks, batch))
        fake = jax.lax.stop_gradient(self._packed(self._generate(networks, batch['key'], given)))
        keys = batch['key'][:: self.config.family.pack]
        fake_logits = networks['discriminator'](fake, given)
        real_logits, penalty, weighted = self._penalty(networks['discriminator'], given, real, fake, keys)
        pay_real, pay_fake, _ = LOSSES[self.config.family.loss]
        loss = pay_fake(fake_logits).mean() + pay_real(real_logits).mean()
        accuracy = ((real_logits > 0).mean() + (fake_logits < 0).mean()) / 2
        return loss + weighted, {'loss': loss, 'penalty': penalty, 'accuracy': accuracy}

    def _penalty(self, critic: Any, given: Given, real: Array, fake: Array, keys: Array) -> tuple[Array, Array, Array]:
        """Logits of the real images (batch,), the penalty, and its weighted contribution to the loss.

        R1: γ/2 E ‖∇D(x)‖² at real x (Mescheder et al. 2018, equation 9). WGAN-GP: λ E (‖∇D(x̂)‖ − 1)² at random points
        on the lines between real and fake images (Gulrajani et al. 2017, equation 3).
        """
        kind, weight = self.config.family.penalty, self.config.family.penalty_weight
        if kind == 'r1':
            logits, gradient = value_and_input_gradient(critic, real, given)
            penalty = jnp.square(gradient).sum((1, 2, 3)).mean()
            return logits, penalty, weight / 2 * penalty
        if kind == 'none':
            return critic(real, given), jnp.zeros(()), jnp.zeros(())
        share = rng.uniform(keys, 'place on the line', (1, 1, 1))
        _, gradient = value_and_input_gradient(critic, share * real + (1 - share) * fake, given)
        norm = jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)) + 1e-12)  # the constant keeps the slope finite at zero
        penalty = jnp.square(norm - 1).mean()
        return critic(real, given), penalty, weight * penalty

    def generator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The generator's loss on the logits of its images."""
        given = self.given(batch)
        fake = self._packed(self._generate(networks, batch['key'], given))
        loss = LOSSES[self.config.family.loss][2](networks['discriminator'](fake, given)).mean()
        return loss, {'loss': loss}

    def _generate(self, networks: Networks, keys: Array, given: Given) -> Array:
        training = {'training': True} if self.config.network.name in NORMALISED else {}
        return networks['generator'](rng.normal(keys, 'z', self.latent_shape), given, **training)

    def _packed(self, images: Array) -> Array:
        """Packs of images as channels, (batch / pack, height, width, pack · channels) (PacGAN, section 2)."""
        packs = images.reshape(-1, self.config.family.pack, *images.shape[1:])
        return jnp.moveaxis(packs, 1, 3).reshape(len(packs), *images.shape[1:3], -1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (latent_size(self.config.network, self.space),)

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        return self.space.decode(networks, networks['generator'](latents, given))

    def latent_model(self, networks: Networks, given: Given) -> LatentModel:
        """N(x; G(z), σ²) with the evaluation's σ: a generator has no observation model (Wu et al. 2017, section 2)."""
        scale = self.config.evaluation.ais.observation_scale
        if scale <= 0:
            raise UserError(f'evaluation.ais.observation_scale is {scale}; it should be positive.')
        return Normal(self.spec, scale).latent_model(
            lambda z: networks['generator'](z, given)[..., None],
            self.latent_shape,
            decoder='normal',
            observation_scale=scale,
        )
