"""Consistency distillation of a diffusion or flow-matching teacher.

Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency Models, 2023.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Average, Batch, Borrowed, Family, Networks, Update, register
from genbench.families.endpoints import EndpointFamily
from genbench.families.paths import PathFamily, scalars
from genbench.families.spaces import Latents
from genbench.interpolants import predictions, steps
from genbench.ranges import LARGEST, PATH, SHARE, Range


@register('consistency')
class Consistency(EndpointFamily):
    """A student f(x_t, t) that jumps to the end of the teacher's trajectory.

    The networks are the 'student' and its average, the 'target', which the loss compares it with. The student starts
    as the denoiser of the run 'teacher', and takes its data, schedule, prediction and network from that run. This
    includes dropout: student and target share one dropout mask, and the teacher uses none.
    """

    main_network = 'student'
    only_to_train = ('teacher',)

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.teacher = _checked((borrowed or {})['teacher'].family, spec)
        super().__init__(config, spec, borrowed)
        self.taught = self.teacher.conditions
        if strange := [name for name, one in self.forms.items() if name not in self.taught or
                       self.taught[name].form != one]:  # fmt: skip
            raise UserError(f'The condition {strange[0]} needs a teacher that was trained with it, but this one was '
                            'not.')  # fmt: skip

    ranges = {'teacher': PATH, 'discretisation': Range(2, LARGEST), 'target_decay': SHARE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'teacher': '',  # run folder of a finished diffusion or flow-matching run
            'discretisation': 18,  # N, the number of steps from t_max to 0
            'target_decay': 0.95,  # μ, decay of the target network
            'huber': cls.HUBER,  # 0: mean squared distance
        }
        return {'family': {'conditional': False, 'conditions': (), **options}, 'network': {'name': 'none'}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        return {'teacher': config.family.teacher}

    @property
    def path_config(self) -> Any:
        return self.teacher.config.family

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {'student': self.teacher.networks(rngs)[self.teacher.main_network]}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """The student starts with the teacher's weights (section 4, algorithm 2)."""
        taught = networks.borrowed('teacher')[self.teacher.main_network]
        nnx.update(networks['student'], nnx.state(taught, nnx.Param))

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('student', ('student',), self.loss),)

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
        x_s = jax.lax.stop_gradient(self._teacher_step(teacher, x_t, t, s))
        target = self.jump(networks.averaged('target')['student'], x_s, s, given, key)
        jumped = self.jump(networks['student'], x_t, t, given, key)
        return scalars(self.distance(jumped - jax.lax.stop_gradient(target)).mean())

    def _teacher_step(self, teacher: predictions.Denoiser, x_t: Array, t: Array, s: Array) -> Array:
        """One step of the solver heun, with separate times for each image."""
        first = steps.slope(self.schedule, teacher(x_t, t))
        guess = steps.advance(self.schedule, x_t, first, t, s)
        second = steps.slope(self.schedule, teacher(guess, self.before_the_end(s)))
        inside = (s > 0)[:, None, None, None]
        return jnp.where(inside, steps.advance(self.schedule, x_t, (first + second) / 2, t, s), guess)


def _checked(teacher: Family, spec: DataSpec) -> PathFamily:
    """The teacher, once it is clear that a student on these data can follow its path."""
    config = teacher.config
    if teacher.spec != spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, but this run trains on {spec}.')
    if not isinstance(teacher, PathFamily) or teacher.kind != 'denoiser':
        raise UserError(
            f'The teacher is a {config.family.name} model, which has no path from noise to data; '
            'use a diffusion or flow_matching run.'
        )
    if isinstance(teacher.space, Latents):
        raise UserError('The teacher models latents, but distillation needs a teacher that models pixels.')
    if teacher.borrowed:
        raise UserError('The teacher builds on other runs, but a student copies one network; use a run that stands '
                        'alone.')  # fmt: skip
    return teacher
