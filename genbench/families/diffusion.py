"""Denoising diffusion probabilistic models.

J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020 (DDPM);
A. Nichol, P. Dhariwal, Improved DDPM, 2021 (cosine schedule, learned variance);
T. Salimans, J. Ho, Progressive Distillation, 2022 (x and v prediction);
T. Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (EDM).
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, Batch, Borrowed, Likelihood, Networks, Update, register
from genbench.families.bounds import VARIANCES
from genbench.families.importance import History
from genbench.families.regression import RegressionFamily
from genbench.interpolants import times, weights
from genbench.interpolants.choices import Choice
from genbench.interpolants.predictions import Prediction
from genbench.networks.monotone import Monotone
from genbench.ranges import NOT_NEGATIVE, STEPS


@register('diffusion')
class Diffusion(RegressionFamily):
    """A denoiser trained on L_simple (DDPM, equation 14) at times t = 1/T, 2/T, …, 1.

    With `weight=vlb`, the loss is `learned_variance` L_vlb instead, the bound in T steps (Improved DDPM, section 3.3).

    With `schedule=learned`, a network determines how log SNR falls between its fixed ends (VDM). The network is trained
    to lower the variance of the bound; the bound's mean does not depend on it.
    """

    learnable = True
    weights = {
        **weights.WEIGHTS,
        'vlb': Choice(lambda schedule, prediction, t: jnp.zeros_like(t), needs=('variances',), offers=('bound',)),
    }
    ranges = {'num_timesteps': STEPS, 'learned_variance': NOT_NEGATIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'cosine',
            'prediction': 'v',
            'num_timesteps': 1000,
            'learned_variance': 0.0,  # weight of the bound in the loss (Improved DDPM: 0.001); 0: fixed variances
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.outputs = 2 if config.family.learned_variance else 1
        super().__init__(config, spec, borrowed)
        if self._learns and config.family.weight != 'elbo':
            raise UserError('family.schedule=learned needs family.weight=elbo: with any other weight the loss would '
                            'depend on the schedule.')  # fmt: skip
        if self._learns and self._cells:
            raise UserError('family.time_sampler=by_weight needs a fixed schedule, but this one is learned.')
        if 'steps' in self._offered:
            self.most_steps = config.family.num_timesteps
        if self._by_importance and config.family.uncertainty:
            raise UserError('family.time_sampler=importance draws steps by the size of their losses, which '
                            'family.uncertainty makes equal; use one of the two.')  # fmt: skip
        if self.outputs == 2:
            self.require('family.learned_variance', ('steps',))
        elif any('variance=learned' in sampler for sampler in config.evaluation.samplers):
            raise UserError('evaluation.samplers has variance=learned, which needs family.learned_variance.')
        for variance in config.evaluation.vlb_variances:
            if variance not in VARIANCES:
                known = did_you_mean(variance, VARIANCES)
                raise UserError(f'evaluation.vlb_variances has {variance!r}, which is not a bound. {known}')
            if variance == 'learned' and self.outputs == 1:
                raise UserError('evaluation.vlb_variances has learned, which needs family.learned_variance.')

    @property
    def _learns(self) -> bool:
        return self.schedule.name == 'learned'

    @property
    def _by_importance(self) -> bool:
        return self.config.family.time_sampler.startswith('importance')

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        schedule = {'schedule': Monotone(rngs)} if self._learns else {}
        history = {History.name: History(self.config.family.num_timesteps)} if self._by_importance else {}
        return {**super().networks(rngs), **schedule, **history}

    @property
    def updates(self) -> tuple[Update, ...]:
        shape = (Update('schedule', ('schedule',), self.spread),) if self._learns else ()
        return (*super().updates, *shape)

    @property
    def averaged(self) -> tuple[str, ...]:
        return (*super().averaged, *(('schedule',) if self._learns else ()))

    @property
    def time_samplers(self) -> Mapping[str, Choice]:
        """The samplers. 'uniform' draws from the T steps, and so does 'importance' for a loss without a history."""
        steps = Choice(times.over_steps, {'count': (self.config.family.num_timesteps, STEPS)}, offers=('steps',))
        plain = functools.partial(times.over_steps, count=self.config.family.num_timesteps)
        importance = Choice(plain, needs=('bound', 'whole batches'), offers=('steps',))
        return {**times.SAMPLERS, 'uniform': steps, 'importance': importance}

    def losses(self, networks: Networks, batch: Batch, key: Array) -> tuple[Array, Array]:
        if not self._by_importance:
            return super().losses(networks, batch, key)
        history = networks[History.name]
        steps, factor = history.draw(batch['key'])
        t = self.time(steps)
        loss = self.losses_at(networks, batch, key, t)
        history.hear(steps, jax.lax.stop_gradient(loss))
        return loss * factor, t

    def variance_loss(self, x: Array, t: Array, predicted: Prediction) -> Array:
        """λ T L_t in bits per dimension of x, whose mean over t is λ L_vlb. Unless this is the whole loss, no gradient
        reaches the predicted image (Nichol & Dhariwal 2021, section 3.1)."""
        steps = self.config.family.num_timesteps
        n = jnp.round(t * steps / self.schedule.t_max)
        if 'bound' not in self._offered:
            predicted = predicted._replace(x=jax.lax.stop_gradient(predicted.x))
        nats = self.bound.learned_term(x, predicted, self.time(n - 1), t, self.time(jnp.arange(1, 3)), n <= 1)
        return self.config.family.learned_variance * steps * -nats / (math.prod(self.space.shape) * math.log(2))

    def time(self, n: Array) -> Array:
        """The time of the integer step n = 0 … T; step T is at the schedule's t_max."""
        return self.schedule.step(n, self.config.family.num_timesteps)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        steps, shared = self.config.family.num_timesteps, super().likelihoods
        if not shared:
            return ()
        first = self.schedule.t_max / steps if self.schedule.curve is None else float(self.time(jnp.asarray(1)))
        chain = {'timesteps': steps, 't_min': first, 't_max': self.schedule.t_max}
        chain |= {'decoder': 'normal around the predicted image', 'clip': self.path_config.clip}
        return (
            *shared,
            *(
                self._bound(f'vlb_{variance}', functools.partial(self._vlb, variance), {**chain, 'variance': variance})
                for variance in self.config.evaluation.vlb_variances
            ),
        )

    def _vlb(self, variance: str, networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
        times = self.time(jnp.arange(1, self.config.family.num_timesteps + 1))
        denoise = self.denoise(networks, given, clip=self.path_config.clip)  # the same chain as in sampling
        return self.asked(networks).bound.in_steps(denoise, images, keys, times, variance, networks)
