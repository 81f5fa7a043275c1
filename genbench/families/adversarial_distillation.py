"""Adversarial diffusion distillation (ADD): A. Sauer et al., Adversarial Diffusion Distillation, 2023."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench import rng
from genbench.families import adversarial
from genbench.families.base import Array, Batch, Networks, Scalars, Update, register
from genbench.families.jumps import JumpingFamily
from genbench.interpolants.schedules import expand
from genbench.networks.gradients import value_and_input_gradient
from genbench.ranges import NOT_NEGATIVE

HINGE = adversarial.LOSSES['hinge']


@register('adversarial_distillation')
class AdversarialDistillation(JumpingFamily):
    """A student whose images a discriminator takes for real, and whose teacher finds nothing to remove from them.

    The student jumps to images from noisy real images, at the times of the steps that it samples with (section 3.1).
    The section `network` of the config describes the discriminator; the student has the network of its teacher.
    """

    ranges = {'distillation': NOT_NEGATIVE, 'penalty_weight': NOT_NEGATIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'jumps': 4,  # number of steps that the student learns to sample with
            'distillation': 2.5,  # λ, weight of the teacher's term (section 3.1)
            'penalty_weight': 1e-5,  # γ of R1 on real images
        }
        return {'family': {**base['family'], **options}, 'network': {'name': 'resnet'}}

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        players = modules.generator_and_discriminator(self.config.network, self.space, self.forms, rngs)
        return {**super().networks(rngs), 'discriminator': players['discriminator']}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('discriminator', ('discriminator',), self.discriminator_loss), *super().updates)

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('student',)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The hinge loss plus γ E ‖∇D‖² on real images (equation 3)."""
        given, real = self.given(batch), self.space.encode(networks, batch)
        fake = networks['discriminator'](jax.lax.stop_gradient(self.images(networks, batch, real)), given)
        logits, slope = value_and_input_gradient(networks['discriminator'], real, given)
        penalty = adversarial.squared_slope(slope)
        loss = HINGE.discriminator(logits, fake)
        told = {'loss': loss, 'penalty': penalty, 'accuracy': HINGE.accuracy(logits, fake)}
        return loss + self.config.family.penalty_weight * penalty, told

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """−E D(x̂) + λ E c(t) ‖x̂ − sg x̂_teacher‖² / d, with c(t) = α (equations 1, 2 and 4)."""
        given = self.given(batch)
        x = self.images(networks, batch, self.space.encode(networks, batch), key)
        fooled = HINGE.generator(x, networks['discriminator'](x, given))
        distance = self.disagreement(networks, batch, x).mean()
        loss = fooled + self.config.family.distillation * distance
        return loss, {'loss': loss, 'adversarial': fooled, 'distillation': distance}

    def images(self, networks: Networks, batch: Batch, real: Array, key: Array | None = None) -> Array:
        """The student's images (batch, …) from noisy real ones, at the time of any of its steps."""
        count = self.config.family.jumps
        t = self.schedule.step(rng.integers(batch['key'], 'jump', 1, count + 1), count)
        x_t = self.schedule.perturb(real, self.draw(batch['key'], 'noise', self.space.shape), t)
        return self.jump(networks['student'], x_t, t, self.given(batch), key)

    def disagreement(self, networks: Networks, batch: Batch, x: Array) -> Array:
        """c(t) ‖x − x̂_teacher‖² / d (batch,), where the teacher sees x with noise of any level; it gets no gradient."""
        t = self.schedule.time(rng.uniform(batch['key'], 'time'))
        t = jnp.maximum(t, self.schedule.t_min)
        noise = self.draw(batch['key'], 'noise of the teacher', self.space.shape)
        x_t = jax.lax.stop_gradient(self.schedule.perturb(x, noise, t))
        seen = self.teacher.denoise(networks.borrowed('teacher'), self.given(batch))(x_t, t).x
        squared = jnp.square(x - jax.lax.stop_gradient(seen)) * expand(self.schedule.alpha(t), x)
        return squared.mean((1, 2, 3))
