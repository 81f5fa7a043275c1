"""A discriminator that sees images through the features of a frozen teacher.

A. Sauer et al., Adversarial Diffusion Distillation, 2023 (ADD): small heads on the features of a frozen network, a
hinge loss, and R1 at the heads' inputs; A. Sauer et al., Fast High-Resolution Image Synthesis with Latent Adversarial
Diffusion Distillation, 2024 (LADD): the frozen network is the teacher, which sees images at random levels of noise.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Form, Given
from genbench.errors import UserError
from genbench.families.adversarial import LOSSES, squared_slope
from genbench.families.base import Array, Networks, Scalars, Update
from genbench.families.paths import PathFamily
from genbench.interpolants import predictions, times
from genbench.interpolants.choices import choose
from genbench.networks.heads import Heads
from genbench.ranges import COUNT, NOT_NEGATIVE

HINGE, FEATURED = LOSSES['hinge'], ('unet', 'dit')
OPTIONS = {
    'judged_times': 'logit_normal:mean=1,deviation=1',  # noise on the images that the discriminator sees (LADD)
    'penalty_weight': 1e-5,  # γ of R1 on real images, at the inputs of the heads (ADD)
    'head_channels': 64,  # of the discriminator's heads
    'discriminator_learning_rate': 0.0,  # 0: the same as the student's
}
RANGES = {'penalty_weight': NOT_NEGATIVE, 'head_channels': COUNT, 'discriminator_learning_rate': NOT_NEGATIVE}


class Judge:
    """The network 'discriminator': heads on what the run 'teacher' makes of noised images, and their losses.

    Args:
      options: the keys of `OPTIONS`.

    Raises:
      UserError: the teacher's network does not show its features, or an option is wrong.
    """

    def __init__(self, options: Any, teacher: PathFamily):
        name = teacher.config.network.name
        if name not in FEATURED:
            raise UserError(f'The teacher has network.name={name}, whose features no discriminator can see; use a '
                            f'teacher with {" or ".join(FEATURED)}.')  # fmt: skip
        sampler = choose('family.judged_times', options.judged_times, times.SAMPLERS)
        if sampler.needs:
            raise UserError(f'family.judged_times is {options.judged_times!r}, which is for losses with a weight; use '
                            'uniform or logit_normal.')  # fmt: skip
        self.options, self.teacher, self._times = options, teacher, sampler.function

    def network(self, forms: Mapping[str, Form], rngs: nnx.Rngs) -> Heads:
        """The discriminator for images with these conditions."""
        seen: Any = nnx.eval_shape(lambda: self.teacher.networks(rng.for_networks(0))[self.teacher.main_network])
        return Heads(seen.widths, self.options.head_channels, forms, rngs=rngs)

    def update(self, loss: Any) -> Update:
        """The discriminator's update by this loss."""
        rate = self.options.discriminator_learning_rate
        return Update('discriminator', ('discriminator',), loss, {'learning_rate': rate} if rate else {})

    def features(self, networks: Networks, x: Array, keys: Array, given: Given) -> tuple[list[Array], Array]:
        """The teacher's states for noised images x (batch, …), and the times (batch,) that it was told."""
        teacher, keys = self.teacher, rng.named(keys, 'judged')
        t = self._times(teacher.schedule, keys)
        x_t = teacher.schedule.perturb(x, teacher.draw(keys, 'noise', teacher.space.shape), t)
        told = teacher.schedule.condition(t)
        seen = predictions.seen(teacher.prediction, teacher.schedule, x_t, t)
        return networks.borrowed('teacher')[teacher.main_network].features(seen, told, given), told

    def logits(self, networks: Networks, x: Array, keys: Array, given: Given) -> list[Array]:
        """The logits of every head, (batch, rows, columns) each, for images x (batch, …)."""
        return networks['discriminator'](*self.features(networks, x, keys, given), given)

    def loss(self, networks: Networks, real: Array, fake: Array, keys: Array, given: Given) -> tuple[Array, Scalars]:
        """The discriminator's hinge loss, summed over heads, plus γ times the penalty (ADD, equation 3)."""
        states, t = self.features(networks, real, rng.named(keys, 'real'), given)
        logits = networks['discriminator'](states, t, given)
        pairs = list(
            zip(logits, self.logits(networks, jax.lax.stop_gradient(fake), rng.named(keys, 'fake'), given), strict=True)
        )
        loss = sum((HINGE.discriminator(*pair) for pair in pairs), jnp.zeros(()))
        accuracy = jnp.stack([HINGE.accuracy(*pair) for pair in pairs]).mean()
        told = {'loss': loss, 'accuracy': accuracy}
        if not self.options.penalty_weight:
            return loss, told
        penalty = self.penalty(networks, states, t, given)
        return loss + self.options.penalty_weight * penalty, {**told, 'penalty': penalty}

    def penalty(self, networks: Networks, states: list[Array], t: Array, given: Given) -> Array:
        """R1 = Σ_k E ‖∇ Σ D_k‖² by the input of head k, with the sum over the places of its logits."""

        def total(states: list[Array]) -> Array:
            return sum((one.sum() for one in networks['discriminator'](states, t, given)), jnp.zeros(()))

        return sum((squared_slope(slope) for slope in jax.grad(total)(states)), jnp.zeros(()))

    def reward(self, networks: Networks, fake: Array, keys: Array, given: Given) -> Array:
        """−Σ_k E D_k, the adversarial loss of who made the images (ADD, equation 2)."""
        return sum((HINGE.generator(one, one) for one in self.logits(networks, fake, keys, given)), jnp.zeros(()))
