"""Consistency models in continuous time (sCM), trained on data (sCT) or distilled from a teacher (sCD).

C. Lu, Y. Song, Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, 2025.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, register
from genbench.families.endpoints import EndpointFamily
from genbench.families.regression import RegressionFamily
from genbench.families.spaces import Latents
from genbench.families.taught import copy
from genbench.interpolants import predictions, weights
from genbench.interpolants.predictions import SIGMA_DATA
from genbench.interpolants.schedules import expand
from genbench.networks.layers import plain_attention
from genbench.ranges import NOT_NEGATIVE, PATH, POSITIVE


@register('continuous_consistency')
class ContinuousConsistency(EndpointFamily, RegressionFamily):
    """Moves f(x_t, t) against its own derivative along the trajectory, which vanishes for the end of a trajectory.

    On the schedule `trig`, f = cos(t) x_t − sin(t) σ_d F(x_t / σ_d, t) with the network F (TrigFlow, equation 5). The
    prediction `preconditioned` is −F.

    Training may start from the weights of a diffusion run on this path, `teacher`. With `distil`, trajectories are the
    teacher's.
    """

    weights = {'none': weights.WEIGHTS['none']}  # the tangent contains the paper's weight, 1 / (σ_d tan t)
    only_to_train = ('teacher',)
    later = {'teacher': ''}
    ranges = {'teacher': PATH, 'tangent_warmup': NOT_NEGATIVE, 'tangent_constant': POSITIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'trig',
            'prediction': 'preconditioned',
            'condition_dropout': 0.0,
            'time_sampler': 'log_normal:mean=-1,deviation=1.4',  # of σ_d tan(t) (section 4.2)
            'uncertainty': True,  # the adaptive weight of section 4.2
            'teacher': '',  # run folder of a diffusion model on this path with this network; '': a fresh start
            'distil': False,  # whether trajectories are the teacher's (sCD) and not those of images and noise (sCT)
            'tangent_warmup': 10_000,  # updates over which the unstable part of the tangent grows in (section 4.2)
            'tangent_constant': 0.1,  # c of the normalised tangent g / (‖g‖ + c) (section 4.2)
        }
        # Derivatives with respect to time grow with the sinusoids' frequencies.
        return {**base, 'family': {**base['family'], **options}, 'network': {'name': 'unet', 'time_scale': 1.0}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if (self.schedule.name, self.prediction) != ('trig', 'preconditioned'):
            raise UserError(f'{self.name} needs family.schedule=trig and family.prediction=preconditioned; this config '
                            f'has {self.schedule.name} and {self.prediction}.')  # fmt: skip
        if config.family.distil and not config.family.teacher:
            raise UserError('family.distil needs a teacher: set family.teacher to a finished run.')
        if 'teacher' in self.borrowed:
            self.teacher = _checked(self, self.borrowed['teacher'].family)

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        return {**super().borrows(config), **({'teacher': config.family.teacher} if config.family.teacher else {})}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        if self.config.family.teacher:
            copy(networks.borrowed('teacher')[self.teacher.main_network], networks['denoiser'])

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """‖F − sg(F + g / (‖g‖ + c))‖² / d with the tangent g, divided by its usual size at t (algorithm 1)."""
        t = self.times(batch['key'])
        x, noise, given = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        if self.config.family.distil:
            x, noise = self.teacher.denoise(networks.borrowed('teacher'), given)(x_t, t)[:2]
        velocity = predictions.target('velocity', self.schedule, x, noise, t)

        def flow(x_t: Array, t: Array) -> Array:
            seen = predictions.seen(self.prediction, self.schedule, x_t, t)
            return -networks['denoiser'](seen, self.schedule.condition(t), given, key=key)

        warmup = self.config.family.tangent_warmup
        ramp = jnp.minimum(step / warmup, 1) if warmup else 1.0
        value, tangent = self.tangent(flow, x_t, t, velocity, ramp)
        size = jnp.sqrt(jnp.square(tangent).sum((1, 2, 3), keepdims=True))
        target = value + tangent / (size + self.config.family.tangent_constant)
        error = jnp.square(value - jax.lax.stop_gradient(target)).mean((1, 2, 3))
        loss, logged = self.total(networks, error, t)
        return loss, {**logged, 'tangent': size.mean()}

    def tangent(
        self, flow: Callable[[Array, Array], Array], x_t: Array, t: Array, velocity: Array, ramp: Array | float = 1.0
    ) -> tuple[Array, Array]:
        """F and g = cos(t) df/dt where x_t moves with `velocity` (batch, …).

        g = −cos²(t) (σ_d F − dx/dt) − r cos(t) sin(t) (x_t + σ_d dF/dt), where r is `ramp` (algorithm 1). The factors
        of dF/dt enter its derivative before it is taken, which keeps it small near both ends (section 5.1).
        """
        cos, sin = jnp.cos(t), jnp.sin(t)
        both, squared = expand(cos * sin, x_t), expand(jnp.square(cos), x_t)
        with plain_attention():  # the loss needs forward-mode differentiation
            value, slope = jax.jvp(flow, (x_t, t), (both * velocity, cos * sin))
        moved = both * x_t + SIGMA_DATA * slope
        return value, -squared * (SIGMA_DATA * value - velocity) - ramp * moved


def _checked(student: ContinuousConsistency, teacher: Any) -> RegressionFamily:
    """The teacher, once it is clear that it knows the student's path, conditions and network."""
    if not isinstance(teacher, RegressionFamily) or teacher.kind != 'denoiser':
        raise UserError(f'The teacher is a {teacher.name} model, which predicts no images from noise; use a diffusion '
                        'run.')  # fmt: skip
    if teacher.spec != student.spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, but this run trains on {student.spec}.')
    if teacher.forms != student.forms:
        raise UserError('The teacher has other conditions than this run; give both the same.')
    if not teacher.stands_alone or isinstance(teacher.space, Latents) or teacher.config.family.offset_noise:
        raise UserError('The teacher should model pixels, need no other run to sample and have family.offset_noise=0.')
    if (teacher.schedule.name, teacher.prediction) != ('trig', 'preconditioned'):
        raise UserError(f'The teacher has family.schedule={teacher.schedule.name} and '
                        f'family.prediction={teacher.prediction}; train one with trig and preconditioned.')  # fmt: skip
    own, others = ({**one.config.network, 'dropout': 0, 'outputs': one.outputs} for one in (student, teacher))
    if own != others:
        raise UserError('The teacher has another network than this run; give both the same, except for dropout.')
    return teacher
