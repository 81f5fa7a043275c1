"""Consistency distillation of a diffusion or flow-matching teacher.

Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency Models, 2023.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Average, Batch, Borrowed, Family, Likelihood, Networks, Update, register
from genbench.families.paths import PathFamily, scalars
from genbench.families.spaces import Latents
from genbench.interpolants import predictions, steps
from genbench.ranges import LARGEST, NOT_NEGATIVE, PATH, SHARE, Range

# x̂ of these tends to x_t as σ → 0, so f(x_t, t) = x̂ meets the boundary condition of section 3 by itself
BOUNDARY_PREDICTIONS = ('noise', 'v', 'velocity', 'preconditioned')


@register('consistency')
class Consistency(PathFamily):
    """A student f(x_t, t) that jumps to the end of the teacher's trajectory.

    Networks: 'student', and its average 'target' that its loss looks at. The run 'teacher' lends the denoiser that the
    student starts as, and data, schedule, prediction and network; so also dropout, of which student and target have
    the same and the teacher has none.
    """

    default_steps = 2
    kind = 'endpoint'
    guidable = False  # the student never sees a null condition
    main_network = 'student'
    only_to_train = ('teacher',)

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.teacher = _checked((borrowed or {})['teacher'].family, spec)
        super().__init__(config, spec, borrowed)
        self.taught = self.teacher.conditions
        if strange := [name for name, one in self.forms.items() if name not in self.taught or
                       self.taught[name].form != one]:  # fmt: skip
            raise UserError(f'The condition {strange[0]} needs a teacher that was trained with it, and this one was '
                            'not.')  # fmt: skip

    ranges = {'teacher': PATH, 'discretisation': Range(2, LARGEST), 'target_decay': SHARE, 'huber': NOT_NEGATIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {
            'teacher': '',  # run folder of a finished diffusion or flow-matching run
            'discretisation': 18,  # N, the number of steps from t_max to 0
            'target_decay': 0.95,  # μ, of the target network
            # c / √d of the pseudo-Huber distance √(‖a − b‖² + c²) − c of d dimensions; 0: the mean squared distance
            'huber': 0.00054,
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
        """d(f(x_{t_{n+1}}), f⁻(x̂_{t_n})): algorithm 2, with one Heun step of the teacher from t_{n+1} to t_n."""
        total = self.config.family.discretisation
        n = rng.integers(batch['key'], 'time', 0, total)
        t, s = self.schedule.step(n + 1, total), self.schedule.step(n, total)
        x, noise, _ = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        given = self.given(batch)
        teacher = self.teacher.denoise(networks.borrowed('teacher'), given)
        x_s = jax.lax.stop_gradient(self._teacher_step(teacher, x_t, t, s))
        target = self._jump(networks.averaged('target')['student'], x_s, s, given, key)
        jumped = self._jump(networks['student'], x_t, t, given, key)
        return scalars(self._distance(jumped - jax.lax.stop_gradient(target)).mean())

    def _jump(self, network: Any, x_t: Array, t: Array, given: Given, key: Array | None = None) -> Array:
        """f(x_t, t), the predicted end of the trajectory; f(x, 0) = x, where some predictions have no limit."""
        denoise = predictions.denoiser(network, self.prediction, self.schedule, given, key=key)
        ended = (t <= 0)[:, None, None, None]
        return jnp.where(ended, x_t, denoise(x_t, self._before_the_end(t)).x)

    def _teacher_step(self, teacher: predictions.Denoiser, x_t: Array, t: Array, s: Array) -> Array:
        """The solver heun with a time for each image."""
        first = steps.slope(self.schedule, teacher(x_t, t))
        guess = steps.advance(self.schedule, x_t, first, t, s)
        second = steps.slope(self.schedule, teacher(guess, self._before_the_end(s)))
        inside = (s > 0)[:, None, None, None]
        return jnp.where(inside, steps.advance(self.schedule, x_t, (first + second) / 2, t, s), guess)

    def _before_the_end(self, t: Array) -> Array:
        """t, or t_min for 0, at which no network can be asked and the answer is not used."""
        return jnp.where(t > 0, t, self.schedule.t_min)

    def _distance(self, difference: Array) -> Array:
        """√(‖·‖² + c²) − c with c = huber √d (Song & Dhariwal 2024, section 3.3), or the mean square, (batch,)."""
        squared = jnp.square(difference).sum((1, 2, 3))
        dims, huber = difference[0].size, self.config.family.huber
        c = huber * dims**0.5
        return jnp.sqrt(squared + c**2) - c if huber else squared / dims

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """None: f is not the drift of a flow."""
        return ()


def _checked(teacher: Family, spec: DataSpec) -> PathFamily:
    """The teacher, whose path a student of these data can follow."""
    config = teacher.config
    if teacher.spec != spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, and this run trains on {spec}.')
    if not isinstance(teacher, PathFamily) or teacher.kind != 'denoiser':
        raise UserError(
            f'The teacher is a {config.family.name} model, which has no path from noise to data; '
            'use a diffusion or flow_matching run.'
        )
    if isinstance(teacher.space, Latents):
        raise UserError('The teacher is a model of latents, of which no student can be made; use one of pixels.')
    if config.family.prediction not in BOUNDARY_PREDICTIONS:
        raise UserError(
            f'The teacher predicts {config.family.prediction!r}; the image that a student predicts must '
            f'tend to x_t as the noise vanishes, as with {", ".join(BOUNDARY_PREDICTIONS)}.'
        )
    return teacher
