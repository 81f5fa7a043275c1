"""Easy consistency tuning (ECT): a finished diffusion run becomes a consistency model.

Z. Geng, A. Pokle, W. Luo, J. Lin, J. Z. Kolter, Consistency Models Made Easy, 2024.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.endpoints import EndpointFamily
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily
from genbench.interpolants import times
from genbench.interpolants.choices import choose
from genbench.interpolants.spacings import LOUDEST
from genbench.ranges import COUNT, LARGEST, Range

WIDENED = 8.0  # k of n(t) = 1 + k sigmoid(−b t) with b = 1: how much longer steps are near the data (official code)


@register('consistency_tuning')
class ConsistencyTuning(TaughtFamily, EndpointFamily):
    """Jumps from two times of one path are trained to agree, as the earlier time moves from 0 to the later one.

    The student starts as its teacher, a denoiser. As long as the earlier time is 0, it remains one.
    """

    ranges = {'tuning_stages': COUNT, 'shrinking': Range(1, LARGEST, above=True)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'time_sampler': 'log_normal:mean=-1.1,deviation=2',  # of the later time
            'tuning_stages': 8,  # number of equal parts of the run; steps are shorter in each
            'shrinking': 2.0,  # q, the factor by which steps shrink from one part to the next
            'huber': cls.HUBER,
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        drawn = choose('family.time_sampler', config.family.time_sampler, times.SAMPLERS)
        if drawn.needs:
            raise UserError(f'family.time_sampler is {config.family.time_sampler!r}, but {self.name} has no weight '
                            'over time that it could follow; use log_normal or uniform.')  # fmt: skip
        self._draw_times = drawn.function

    def earlier(self, level: Array, step: Array) -> Array:
        """The noise level r (batch,) that is compared with `level`: r / t = 1 − n(t) / qᵃ, or 0, in part a = 1, 2, ….

        n(t) = 1 + 8 sigmoid(−t), as in the official code.
        """
        options = self.config.family
        part = max(self.config.train.num_steps // options.tuning_stages, 1)
        passed = jnp.minimum(step // part, options.tuning_stages - 1) + 1.0
        share = (1 + WIDENED * jax.nn.sigmoid(-level)) / options.shrinking**passed
        return level * jnp.maximum(1 - share, 0)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """d(f(x_t, t), sg f(x_r, r)) / (t − r) in noise levels σ / α, with one dropout mask."""
        late = self._draw_times(self.schedule, batch['key'])
        sigma = self.schedule.sigma(late)
        level = sigma / jnp.maximum(self.schedule.alpha(late), sigma / LOUDEST)
        below = self.earlier(level, step)
        early = jnp.where(below > 0, self.schedule.time_at(below), 0)
        image, noise, _ = self.pairs(networks, batch, key)

        def ends(t: Array) -> Array:
            x_t = self.schedule.perturb(image, noise, t)
            return self.jump(networks['student'], x_t, t, self.given(batch), key)

        difference = ends(late) - jax.lax.stop_gradient(ends(early))
        return scalars((self.distance(difference) / (level - below)).mean(), ratio=(below / level).mean())
