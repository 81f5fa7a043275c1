"""Consistency distillation of a diffusion or flow-matching teacher.

Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency Models, 2023.
"""

from typing import Any

import jax

from genbench import rng
from genbench.families.base import Array, Average, Batch, Networks, register
from genbench.families.endpoints import ComparedJumps
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily
from genbench.ranges import LARGEST, SHARE, Range


@register('consistency')
class Consistency(ComparedJumps, TaughtFamily):
    """A student f(x_t, t) that jumps to the end of the teacher's trajectory.

    The networks are the 'student' and its average, the 'target', which the loss compares it with. The student starts
    as its teacher (section 4, algorithm 2). Student and target share one dropout mask, and the teacher uses none.
    """

    ranges = {'discretisation': Range(2, LARGEST), 'target_decay': SHARE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'discretisation': 18,  # N, the number of steps from t_max to 0
            'target_decay': 0.95,  # μ, decay of the target network
            'huber': cls.HUBER,  # 0: mean squared distance
        }
        return {**base, 'family': {**base['family'], **options}}

    @property
    def averages(self) -> tuple[Average, ...]:
        target = Average('target', ('student',), self.config.family.target_decay, warmup=False)
        return (*super().averages, target)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        """d(f(x_{t_{n+1}}), f⁻(x̂_{t_n})), by algorithm 2; the teacher takes one Heun step from t_{n+1} to t_n."""
        total = self.config.family.discretisation
        n = rng.integers(batch['key'], 'time', 0, total)
        t, s = self.schedule.step(n + 1, total), self.schedule.step(n, total)
        x, noise, _ = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        given = self.given(batch)
        teacher = self.teacher.denoise(networks.borrowed('teacher'), given)
        x_s = jax.lax.stop_gradient(self.solver_step(teacher, x_t, t, s))
        target = self.jump(networks.averaged('target')['student'], x_s, s, given, key)
        jumped = self.jump(networks['student'], x_t, t, given, key)
        return scalars(self.apart(networks, jumped, jax.lax.stop_gradient(target)).mean())
