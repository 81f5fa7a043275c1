"""Shortcut models: K. Frans et al., One Step Diffusion via Shortcut Models, 2024."""

from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.families.base import Array, Batch, Networks, Scalars, register
from genbench.families.regression import FlowMapFamily
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.ranges import PROBABILITY, Range


@register('shortcut')
class Shortcut(FlowMapFamily):
    """Flow matching, plus jumps trained to match two successive jumps of half their length (equation 5)."""

    ranges = {'consistent': PROBABILITY, 'halvings': Range(1, 20)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'consistent': 0.25,  # the share of images that learn jumps; the rest is flow matching (section 3.2)
            'halvings': 7,  # of the longest jump, down to 1 / 128; the shortest jump follows the velocity
        }
        return {**base, 'family': {**base['family'], **options}}

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """‖u(x_t, t, s) − target‖². For most images s = t, and the target is the velocity."""
        jumps = rng.uniform(batch['key'], 'consistent') < self.config.family.consistent
        k = rng.integers(batch['key'], 'halvings', 0, self.config.family.halvings)
        length = self.schedule.t_max / 2.0**k
        from_end = jnp.floor(rng.uniform(batch['key'], 'start') * 2.0**k)  # the number of jumps before this one
        t = jnp.where(jumps, self.schedule.t_max - length * from_end, self.times(batch['key']))
        s = jnp.where(jumps, t - length, t)
        x, noise, given = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        target = self._two_jumps(networks.averaged('ema'), given, x_t, t, length, k)
        velocity = predictions.target('velocity', self.schedule, x, noise, t)
        target = jnp.where(expand(jumps, x), jax.lax.stop_gradient(target), velocity)
        error = self.mean_velocity(networks, given, key)(x_t, t, s) - target
        return self.total(networks, jnp.square(error).mean((1, 2, 3)) * self.weight(t), t)

    def _two_jumps(self, networks: Networks, given: Any, x_t: Array, t: Array, length: Array, k: Array) -> Array:
        """The mean velocity of two jumps of half the length, with the averaged network."""
        jump, half = self.mean_velocity(networks, given), length / 2
        asked = jnp.where(k == self.config.family.halvings - 1, 0.0, half)  # the shortest jumps use the velocity
        first = jump(x_t, t, t - asked)
        second = jump(x_t - expand(half, x_t) * first, t - half, t - half - asked)
        return (first + second) / 2
