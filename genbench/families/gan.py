"""Generative adversarial networks.

I. Goodfellow et al., Generative Adversarial Nets, 2014; L. Mescheder, A. Geiger, S. Nowozin, Which Training Methods
for GANs do actually Converge?, 2018 (R1); M. Arjovsky, S. Chintala, L. Bottou, Wasserstein GAN, 2017; I. Gulrajani et
al., Improved Training of Wasserstein GANs, 2017 (WGAN-GP); Z. Lin et al., PacGAN: The power of two samples in
generative adversarial networks, 2018 (packs); N. Huang et al., The GAN is dead; long live the GAN!, 2024 (R3GAN).
`adversarial.py` has the losses.

The penalties follow the papers' equations. Mescheder et al.'s code omits the ½ of R1, so its weight of 10 is γ = 20
here. Gulrajani et al. use five critic steps (`critic_steps`), λ = 10, and Adam with decays 0 and 0.9. They also give
the generator twice as many images as the critic; no config key sets this.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families import adversarial, augmented
from genbench.families.adversarial import LOSSES
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
from genbench.families.observations import Normal, check_scale
from genbench.networks import NORMALISED, generator_and_discriminator, latent_size
from genbench.networks.gradients import value_and_input_gradient
from genbench.ranges import COUNT, NOT_NEGATIVE, POSITIVE, Range

PENALTIES = ('r1', 'r1_r2', 'gradient_penalty', 'none')


@register('gan')
class GAN(Family):
    """Each step trains the discriminator first, then the generator. There is no likelihood."""

    ranges = {
        'penalty_weight': NOT_NEGATIVE, 'penalty_falls_to': Range(0, 1), 'penalty_every': COUNT,
        'critic_steps': COUNT, 'discriminator_learning_rate': NOT_NEGATIVE, 'orthogonality': NOT_NEGATIVE,
        'pack': COUNT, 'drift': NOT_NEGATIVE, 'penalty_target': POSITIVE, **augmented.RANGES,
    }  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'loss': 'non_saturating',  # or 'wasserstein', 'hinge', 'relativistic'
            'penalty': 'r1',  # or 'r1_r2' (R3GAN), 'gradient_penalty' (WGAN-GP), 'none'
            'penalty_weight': 1.0,  # γ of R1 and R2, λ of WGAN-GP (10 in the paper)
            'penalty_target': 1.0,  # γ of WGAN-GP, the norm of the gradient (Karras et al. 2018: 750 for CIFAR-10)
            'penalty_falls_to': 1.0,  # fraction of the weight at the end of the run, reached along half a cosine
            'penalty_every': 1,  # steps from one penalty to the next, and its factor (StyleGAN2: 16)
            'drift': 0.0,  # weight of the mean square of D(x) at real x (progressive GAN: 1e-3)
            'critic_steps': 1,  # discriminator updates per generator update
            'discriminator_learning_rate': 0.0,  # 0: the same as the generator's
            'orthogonality': 0.0,  # weight of the products of the generator's kernels (BigGAN: 1e-4)
            'pack': 1,  # images that the discriminator judges together, all real or all fake (PacGAN)
            **augmented.OPTIONS,
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
        adversarial.check(config, self.conditional)
        augmented.check(config.family)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        options, pack = self.config.family, self.config.family.pack
        players = generator_and_discriminator(self.network, self.space, self.forms, rngs, pack)
        return players | ({'augmentation': augmented.Controller()} if augmented.controlled(options) else {})

    @property
    def network(self) -> Any:
        """The config of the networks, in a stage if the run has several."""
        return self.config.network

    @property
    def updates(self) -> tuple[Update, ...]:
        rate, every = self.config.family.discriminator_learning_rate, self.config.family.critic_steps
        options = {'learning_rate': rate} if rate else {}
        # Micro-batches share singular vectors of spectral normalisation, but no controller's signs or batch statistics.
        whole = self.config.network.name in NORMALISED
        splits = not whole and not augmented.controlled(self.config.family)
        return (
            Update('discriminator', ('discriminator',), self.discriminator_loss, options, splits=splits),
            Update('generator', ('generator',), self.generator_loss, every=every, splits=not whole),
        )

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('generator',)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The discriminator's loss on real and fake images, plus its weighted penalty.

        Real images are dequantised uniformly. Otherwise their grid of levels would give them away.
        """
        given = self.given(batch)
        real = self._real(networks, batch)
        fake = jax.lax.stop_gradient(self._packed(self._generate(networks, batch['key'], given)))
        keys = batch['key'][:: self.config.family.pack]
        critics = tuple(self._critic(networks, keys, step, kind) for kind in ('real', 'fake'))
        fake_logits = critics[1](fake, given)
        every = self.config.family.penalty_every
        if every == 1:
            real_logits, penalty, weighted = self._penalty(critics, given, real, fake, keys)
        else:  # the logits stay outside the conditional, in which gradients would not be scattered over devices
            real_logits = critics[0](real, given)
            penalty, weighted = adversarial.sometimes(
                step, every, lambda critics: self._penalty(critics, given, real, fake, keys)[1:],
                lambda critics: (jnp.zeros(()), jnp.zeros(())), critics,
            )  # fmt: skip
        chosen = LOSSES[self.config.family.loss]
        loss, accuracy = chosen.discriminator(real_logits, fake_logits), chosen.accuracy(real_logits, fake_logits)
        told = augmented.heard(self.config.family, networks.get('augmentation'), real_logits, step)
        told |= {'loss': loss, 'penalty': every * penalty, 'accuracy': accuracy}  # logs are means over steps
        left = adversarial.falling(step, self.config.train.num_steps, self.config.family.penalty_falls_to)
        drift = self.config.family.drift * jnp.square(real_logits).mean() if self.config.family.drift else 0.0
        return loss + every * left * weighted + drift, told

    def _critic(self, networks: Networks, keys: Array, step: Array, kind: str) -> Any:
        """The discriminator as it sees 'real' or 'fake' images."""
        critic, controller = networks['discriminator'], networks.get('augmentation')
        return augmented.seen(self.config, critic, controller, rng.named(keys, kind), step)

    def _penalty(self, critics: Any, given: Given, real: Array, fake: Array, keys: Array) -> tuple[Array, Array, Array]:
        """Logits of the real images (batch,), the penalty, and its weighted contribution to the loss.

        R1: γ/2 E ‖∇D(x)‖² at real x (Mescheder et al. 2018, equation 9), to which R2 adds the same at fake x. WGAN-GP:
        λ E (‖∇D(x̂)‖ / γ − 1)² at random points on the lines between real and fake images (Gulrajani et al. 2017,
        equation 3, where γ is 1).
        """
        kind, weight, critic = self.config.family.penalty, self.config.family.penalty_weight, critics[0]
        if kind in ('r1', 'r1_r2'):
            logits, gradient = value_and_input_gradient(critic, real, given)
            penalty = adversarial.squared_slope(gradient)
            if kind == 'r1_r2':
                penalty += adversarial.squared_slope(value_and_input_gradient(critics[1], fake, given)[1])
            return logits, penalty, weight / 2 * penalty
        if kind == 'none':
            return critic(real, given), jnp.zeros(()), jnp.zeros(())
        share = rng.uniform(keys, 'place on the line', (1, 1, 1))
        _, gradient = value_and_input_gradient(critic, share * real + (1 - share) * fake, given)
        norm = jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)) + 1e-12)  # the constant keeps the slope finite at zero
        target = self.config.family.penalty_target
        penalty = jnp.square(norm / target - 1).mean()
        return critic(real, given), penalty, weight * penalty

    def generator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The generator's loss on the logits of its images."""
        given = self.given(batch)
        fake = self._packed(self._generate(networks, batch['key'], given))
        keys = batch['key'][:: self.config.family.pack]
        chosen = LOSSES[self.config.family.loss]
        logits = real = self._critic(networks, keys, step, 'fake')(fake, given)
        if chosen.pairs:
            real = self._critic(networks, keys, step, 'real')(self._real(networks, batch), given)
        loss, weight = chosen.generator(real, logits), self.config.family.orthogonality
        cost = weight * adversarial.orthogonality(networks['generator']) if weight else 0.0
        return loss + cost, {'loss': loss}

    def _real(self, networks: Networks, batch: Batch) -> Array:
        return self._packed(self.space.encode(networks, batch))

    def _packed(self, images: Array) -> Array:
        return adversarial.packed(images, self.config.family.pack)

    def _generate(self, networks: Networks, keys: Array, given: Given) -> Array:
        return networks['generator'](rng.normal(keys, 'z', self.latent_shape), given, **self.training)

    @property
    def training(self) -> dict[str, bool]:
        """What a generator is told in training."""
        return {'training': True} if self.config.network.name in NORMALISED else {}

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (latent_size(self.config.network, self.space),)

    def generate(self, networks: Networks, latents: Array, keys: Array, given: Given, sampler: Sampler) -> Array:
        return self.space.decode(networks, networks['generator'](latents, given))

    def latent_model(self, networks: Networks, given: Given) -> LatentModel:
        """N(x; G(z), σ²) with the evaluation's σ: a generator has no observation model (Wu et al. 2017, section 2)."""
        scale = self.config.evaluation.ais.observation_scale
        check_scale('evaluation.ais.observation_scale', scale, self.spec)
        return Normal(self.spec, scale).latent_model(
            lambda z: networks['generator'](z, given)[..., None],
            self.latent_shape,
            decoder='normal',
            observation_scale=scale,
        )
