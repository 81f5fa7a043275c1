"""Inductive moment matching: L. Zhou, S. Ermon, J. Song, Inductive Moment Matching, 2025."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.regression import FlowMapFamily
from genbench.interpolants import weights
from genbench.interpolants.choices import Choice
from genbench.interpolants.predictions import SIGMA_DATA
from genbench.interpolants.schedules import Schedule, expand
from genbench.ranges import ANY, POSITIVE, Range, one_of

SHORTEST = 1e-6  # length of a jump in the kernel: t is s in a group that is drawn at the earliest time


def _moments(schedule: Schedule, prediction: str, t: Array, *, bias: float) -> Array:
    """½ sigmoid(b − λ) (−dλ/dt) α / (α² + σ²) with λ = log SNR (equation 13 with a = 1)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    log_snr, slope = jax.jvp(schedule.log_snr, (t,), (jnp.ones_like(t),))
    return 0.5 * jax.nn.sigmoid(bias - log_snr) * -slope * alpha / (jnp.square(alpha) + jnp.square(sigma))


@register('inductive_moment_matching')
class InductiveMomentMatching(FlowMapFamily):
    """Jumps to s from t and from r, a little closer to s, are trained to have the same distribution (section 4).

    Images form groups that share their times. Within a group, the loss is the maximum mean discrepancy of the two
    sets of jumps.
    """

    weights = {'none': weights.WEIGHTS['none'], 'moments': Choice(_moments, {'bias': (5.0, ANY)})}
    ranges = {
        'group': Range(2, 1024), 'decrement': POSITIVE, 'decrement_in': one_of('time', 'noise_level'),
        'latest': Range(0, 1, above=True),
    }  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'group': 4,  # M, the number of images to compare together
            'decrement': 0.05,  # the step from t to r; the loss compares jumps from both
            # or 'noise_level': of σ / α (the paper's choice; with unit noise, 80 / 2¹² or 80 / 2¹⁵)
            'decrement_in': 'time',
            'latest': 0.994,  # the latest time in training
            'weight': 'moments',
        }
        # Samples begin slightly later than the latest trained time. Slow sinusoids barely change over that gap.
        return {'family': {**base['family'], **options}, 'network': {'name': 'unet', 'time_scale': 30.0}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.require('family.name=inductive_moment_matching', ('whole batches',))
        if config.train.batch_size % config.family.group:
            raise UserError(f'family.group is {config.family.group}, which does not divide train.batch_size '
                            f'({config.train.batch_size}).')  # fmt: skip

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """Equation 12 with a Laplace kernel and the weight of section 4.3."""
        t, r, s = self._three_times(batch['key'])
        x, noise, given = self.pairs(networks, batch, key)

        def jump(t: Array, key: Array | None) -> Array:
            x_t = self.schedule.perturb(x, noise, t)
            jumped = x_t - expand(t - s, x_t) * self.mean_velocity(networks, given, key)(x_t, t, s)
            return jumped.reshape(-1, self.config.family.group, x[0].size)

        ours, theirs = jump(t, key), jax.lax.stop_gradient(jump(r, None))
        length = jnp.maximum(t - s, SHORTEST).reshape(-1, self.config.family.group)[:, :1, None]
        width = SIGMA_DATA * length  # |c_out|
        kernel = lambda one, other: jnp.exp(-_distance(one, other) / width).mean((1, 2))  # noqa: E731
        squared = kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs)
        return self.total(networks, jnp.repeat(squared, self.config.family.group) * self.weight(t), t)

    def _three_times(self, keys: Array) -> tuple[Array, Array, Array]:
        """t > r ≥ s for each image. A group shares the times of its first image."""
        options, firsts = self.config.family, keys[:: self.config.family.group]
        t = jnp.minimum(self.times(firsts), options.latest)
        s = self.schedule.t_min + (t - self.schedule.t_min) * rng.uniform(firsts, 'target')
        if options.decrement_in == 'time':
            earlier = t - options.decrement
        else:
            level = self.schedule.sigma(t) / self.schedule.alpha(t)
            earlier = self.schedule.time_at(level - options.decrement)
        r = jnp.clip(earlier, s, t)
        return jnp.repeat(t, options.group), jnp.repeat(r, options.group), jnp.repeat(s, options.group)


def _distance(one: Array, other: Array) -> Array:
    """‖·‖₂ / d for every pair in a group, (groups, M, M); differentiable even where the two coincide."""
    squared = jnp.square(one[:, :, None] - other[:, None]).sum(-1)
    return jnp.sqrt(jnp.maximum(squared, 1e-12)) / one.shape[-1]
