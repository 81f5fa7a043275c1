"""Adversarial diffusion distillation.

A. Sauer, D. Lorenz, A. Blattmann, R. Rombach, Adversarial Diffusion Distillation, 2023 (ADD). The discriminator is that
of the follow-up on latents, LADD (`judges.py`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.families import judges
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, Update, register
from genbench.families.endpoints import LearnedJumps
from genbench.families.judges import Judge
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily
from genbench.interpolants import times
from genbench.interpolants.schedules import expand
from genbench.ranges import NOT_NEGATIVE


@register('adversarial_distillation')
class AdversarialDistillation(TaughtFamily, LearnedJumps):
    """A student whose images deceive a discriminator and stay where its teacher would denoise them to.

    Each step trains the discriminator first, then the student. The student jumps to images from noised real ones, at
    the times of `jumps` steps.
    """

    ranges = {'distillation': NOT_NEGATIVE, **judges.RANGES}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'jumps': 4,  # N, the number of times that the student learns
            'distillation': 2.5,  # λ, weight of the distillation loss
            **judges.OPTIONS,
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.judge = Judge(config.family, self.teacher)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {**super().networks(rngs), 'discriminator': self.judge.network(self.forms, rngs)}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (self.judge.update(self.discriminator_loss), *super().updates)

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('student',)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The hinge loss of real images and those of the student, plus R1 (equation 3)."""
        real, given = self.space.encode(networks, batch), self.given(batch)
        return self.judge.loss(networks, real, self.images(networks, real, batch['key'], given), batch['key'], given)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """L = L_adv + λ L_distill (equation 1)."""
        real, given = self.space.encode(networks, batch), self.given(batch)
        x = self.images(networks, real, batch['key'], given, key)
        adversarial = self.judge.reward(networks, x, batch['key'], given)
        distillation = self.distillation(networks, x, batch['key'], given)
        total = adversarial + self.config.family.distillation * distillation
        return scalars(total, adversarial=adversarial, distillation=distillation)

    def images(self, networks: Networks, real: Array, keys: Array, given: Given, key: Array | None = None) -> Array:
        """The student's x̂(x_s, s) for real images (batch, …) that are noised; `key` is that of its dropout.

        s is one of the times of N steps, all equally likely (section 3.1). At the last one x_s is noise alone, as where
        sampling starts. The paper changes the schedule to this end.
        """
        count = self.config.family.jumps
        n = rng.integers(keys, 'step', 1, count + 1)
        left = jnp.where(expand(n == count, real), 0.0, real)
        s = self.schedule.step(n, count)
        return self.jump(networks['student'], self.noised(left, keys, s), s, given, key)

    def distillation(self, networks: Networks, x: Array, keys: Array, given: Given) -> Array:
        """E c(t) ‖x − x̂_teacher(sg(x_t), t)‖² / d with even times t and exponential weights c(t) = α (equation 4).

        Here c(t) = α / √(α² + σ²), which is α on the paper's path. No gradient passes through the teacher.
        """
        keys = rng.named(keys, 'distillation')
        t = times.uniform(self.schedule, keys)
        x_t = jax.lax.stop_gradient(self.noised(x, keys, t))
        target = jax.lax.stop_gradient(self.teacher.denoise(networks.borrowed('teacher'), given)(x_t, t).x)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        weight = alpha / jnp.sqrt(jnp.square(alpha) + jnp.square(sigma))
        return (weight * jnp.square(x - target).mean((1, 2, 3))).mean()

    def noised(self, x: Array, keys: Array, t: Array) -> Array:
        """α x + σ ε at times (batch,), with the ε of these keys."""
        return self.schedule.perturb(x, self.draw(keys, 'noise', self.space.shape), t)
