"""Consistency models without a teacher.

Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency Models, 2023 (section 5: consistency training);
Y. Song, P. Dhariwal, Improved Techniques for Training Consistency Models, 2024 (iCT: all the defaults here).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.endpoints import ComparedJumps
from genbench.families.regression import RegressionFamily
from genbench.ranges import LARGEST, Range

CLOSE = 1e-4  # times are the same up to this fraction: rounding must not decide to which step the earliest time belongs


@register('consistency_training')
class ConsistencyTraining(ComparedJumps, RegressionFamily):
    """Jumps from neighbouring times on one image's path are trained to agree, on an ever finer grid of times."""

    ranges = {'fewest': Range(2, LARGEST), 'most': Range(2, 2**14)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'edm',
            'prediction': 'preconditioned',
            'condition_dropout': 0.0,
            'time_sampler': 'log_normal:mean=-1.1,deviation=2',  # section 3.5
            'fewest': 10,  # s₀, the number of steps from t_max to 0 at the start of training; it doubles
            'most': 1280,  # s₁, the number at which doubling stops (section 3.4)
            'huber': cls.HUBER,  # 0: mean squared distance
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.family.fewest > config.family.most:
            raise UserError(f'family.fewest is {config.family.fewest}, more than family.most '
                            f'({config.family.most}).')  # fmt: skip

    def steps(self, step: Array) -> Array:
        """N(k), the number of steps at update k, which doubles at equal intervals of the run (equation 10)."""
        fewest, most = self.config.family.fewest, self.config.family.most
        part = max(self.config.train.num_steps // (int(math.log2(most / fewest)) + 1), 1)
        return jnp.minimum(fewest * 2.0 ** (step // part), most).astype(int)

    def neighbours(self, keys: Array, count: Array) -> tuple[Array, Array]:
        """Times t > s (batch,): the ends of the step, of `count`, that contains the time that the time sampler drew."""
        number = jnp.arange(self.config.family.most + 1)
        times = jnp.where(number <= count, self.schedule.step(number, count), jnp.inf)
        drawn = (1 - CLOSE) * self.times(keys)
        n = jnp.clip(jnp.searchsorted(times, drawn), 1, count)
        return times[n], times[n - 1]

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """λ(s, t) d(f(x_t, t), sg f(x_s, s)), λ = 1 / (t − s) in noise levels, with one dropout mask (section 3.1)."""
        t, s = self.neighbours(batch['key'], self.steps(step))
        x, noise, given = self.pairs(networks, batch, key)
        jump = lambda time: self.jump(  # noqa: E731
            networks['denoiser'], self.schedule.perturb(x, noise, time), time, given, key
        )
        distance = self.apart(networks, jump(t), jax.lax.stop_gradient(jump(s)))
        length = self.schedule.straightened(t)[1] - self.schedule.straightened(s)[1]
        return self.total(networks, distance / length * self.weight(t), t)
