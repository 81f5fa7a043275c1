"""Mean flows: Z. Geng et al., Mean Flows for One-step Generative Modeling, 2025."""

from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.families.base import Array, Batch, Networks, Scalars, register
from genbench.families.regression import FlowMapFamily
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.networks.layers import plain_attention
from genbench.ranges import NOT_NEGATIVE, PROBABILITY


@register('mean_flow')
class MeanFlow(FlowMapFamily):
    """Learns the mean velocity u from the identity u = v − (t − s) du/dt (equation 6)."""

    ranges = {'apart': PROBABILITY, 'adaptive': NOT_NEGATIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'apart': 0.25,  # the share of images with s < t; the rest is flow matching (table 1a)
            'adaptive': 1.0,  # p: the squared error is divided by itself raised to the power p (table 1e)
            'time_sampler': 'logit_normal:mean=-0.4',
        }
        # Derivatives with respect to time grow with the sinusoids' frequencies.
        return {'family': {**base['family'], **options}, 'network': {'name': 'unet', 'time_scale': 30.0}}

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """‖u − sg(v − (t − s) (v ∂u/∂x + ∂u/∂t))‖² (algorithm 1)."""
        times = self.times(batch['key']), self.times(rng.named(batch['key'], 'second time'))
        apart = rng.uniform(batch['key'], 'apart') < self.config.family.apart
        t = jnp.maximum(*times)
        s = jnp.where(apart, jnp.minimum(*times), t)
        x, noise, given = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        v = predictions.target('velocity', self.schedule, x, noise, t)
        with plain_attention():  # the loss needs forward-mode differentiation
            along = v, jnp.ones_like(t), jnp.zeros_like(s)
            u, slope = jax.jvp(self.mean_velocity(networks, given, key), (x_t, t, s), along)
        error = jnp.square(u - jax.lax.stop_gradient(v - expand(t - s, v) * slope)).mean((1, 2, 3))
        scale = jax.lax.stop_gradient(error + 1e-3) ** self.config.family.adaptive
        return self.total(networks, error * self.weight(t) / scale, t)
