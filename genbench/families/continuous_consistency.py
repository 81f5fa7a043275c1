"""Consistency models in continuous time (sCM), trained without a teacher.

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
from genbench.interpolants import predictions, weights
from genbench.interpolants.predictions import SIGMA_DATA
from genbench.interpolants.schedules import expand
from genbench.networks.layers import plain_attention
from genbench.ranges import NOT_NEGATIVE, POSITIVE


@register('continuous_consistency')
class ContinuousConsistency(EndpointFamily, RegressionFamily):
    """Moves f(x_t, t) against its own derivative along the trajectory, which vanishes for the end of a trajectory.

    On the schedule `trig`, f = cos(t) x_t − sin(t) σ_d F(x_t / σ_d, t) with the network F (TrigFlow, equation 5). The
    prediction `preconditioned` is −F.
    """

    weights = {'none': weights.WEIGHTS['none']}  # the tangent contains the paper's weight, 1 / (σ_d tan t)
    ranges = {'tangent_warmup': NOT_NEGATIVE, 'tangent_constant': POSITIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'trig',
            'prediction': 'preconditioned',
            'condition_dropout': 0.0,
            'time_sampler': 'log_normal:mean=-1,deviation=1.4',  # of σ_d tan(t) (section 4.2)
            'uncertainty': True,  # the adaptive weight of section 4.2
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

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """‖F − sg(F + g / (‖g‖ + c))‖² / d with the tangent g, divided by its usual size at t (algorithm 1)."""
        t = self.times(batch['key'])
        x, noise, given = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
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
