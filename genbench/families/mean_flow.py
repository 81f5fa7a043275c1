"""Mean flows: Z. Geng et al., Mean Flows for One-step Generative Modeling, 2025."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data import conditions
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.regression import FlowMapFamily
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.networks.layers import plain_attention
from genbench.ranges import NOT_NEGATIVE, PROBABILITY, Range, each


@register('mean_flow')
class MeanFlow(FlowMapFamily):
    """Learns the mean velocity u from the identity u = v − (t − s) du/dt (equation 6).

    With `guidance=w`, u is the mean of the guided velocity (1 + w) v(x_t | c) − w v(x_t), so that samples are guided in
    one evaluation of the network (section 4.2).
    """

    ranges = {
        'apart': PROBABILITY, 'adaptive': NOT_NEGATIVE, 'guidance': NOT_NEGATIVE, 'mixed': Range(0, 0.99),
        'guided_within': each(PROBABILITY, fewest=2),
    }  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'apart': 0.25,  # the share of images with s < t; the rest is flow matching (table 1a)
            'adaptive': 1.0,  # p: the squared error is divided by itself raised to the power p (table 1e)
            'time_sampler': 'logit_normal:mean=-0.4',
            'guidance': 0.0,  # w of the velocity that is learned, as in samplers of other families
            'mixed': 0.0,  # κ, the share of the network's own prediction in the target (appendix B.1)
            'guided_within': (0.0, 1.0),  # the times between which the velocity is guided
        }
        # Derivatives with respect to time grow with the sinusoids' frequencies.
        return {'family': {**base['family'], **options}, 'network': {'name': 'unet', 'time_scale': 30.0}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        options = config.family
        droppable = any(one.augment is None for one in self.conditions.values())
        if options.guidance and not (droppable and 0 < options.condition_dropout < 1):
            raise UserError(f'family.guidance is {options.guidance:g}, which compares predictions with and without '
                            'conditions; set family.conditional=True and family.condition_dropout=0.1.')  # fmt: skip
        if len(options.guided_within) != 2 or options.guided_within[0] >= options.guided_within[1]:
            raise UserError(f'family.guided_within is {options.guided_within}; give an earlier and a later time, for '
                            'example (0, 0.75).')  # fmt: skip
        for name in ('mixed', 'guided_within'):
            if options[name] != self.defaults()['family'][name] and not options.guidance:
                raise UserError(f'family.{name} has no effect without family.guidance.')

    def guided(self, networks: Networks, batch: Batch, x_t: Array, t: Array, v: Array) -> Array:
        """ω v + κ u(x_t, t, t | c) + (1 − ω − κ) u(x_t, t, t) with ω = (1 + w) (1 − κ), and v for images without c.

        With κ = 0 this is equation 19. u learns the guided velocity, so that κ of it and 1 − κ of ω / (1 − κ) = 1 + w
        have it as their fixed point (appendix B.1).
        """
        options, given = self.config.family, self.given(batch)
        null = conditions.drop(self.conditions, given, jnp.ones(len(t), bool))
        omega, kappa = (1 + options.guidance) * (1 - options.mixed), options.mixed
        guided = omega * v + (1 - omega - kappa) * self.mean_velocity(networks, null)(x_t, t, t)
        if kappa:
            guided += kappa * self.mean_velocity(networks, given)(x_t, t, t)
        first, last = options.guided_within
        plain = self.silent(batch) | (t < first) | (t > last)
        return jnp.where(expand(plain, v), v, jax.lax.stop_gradient(guided))

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """‖u − sg(v − (t − s) (v ∂u/∂x + ∂u/∂t))‖² (algorithm 1), where v may be guided (equations 17 to 19)."""
        times = self.times(batch['key']), self.times(rng.named(batch['key'], 'second time'))
        apart = rng.uniform(batch['key'], 'apart') < self.config.family.apart
        t = jnp.maximum(*times)
        s = jnp.where(apart, jnp.minimum(*times), t)
        x, noise, given = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        v = predictions.target('velocity', self.schedule, x, noise, t)
        if self.config.family.guidance:
            v = self.guided(networks, batch, x_t, t, v)
        with plain_attention():  # the loss needs forward-mode differentiation
            along = v, jnp.ones_like(t), jnp.zeros_like(s)
            u, slope = jax.jvp(self.mean_velocity(networks, given, key), (x_t, t, s), along)
        error = jnp.square(u - jax.lax.stop_gradient(v - expand(t - s, v) * slope)).mean((1, 2, 3))
        scale = jax.lax.stop_gradient(error + 1e-3) ** self.config.family.adaptive
        return self.total(networks, error * self.weight(t) / scale, t)
