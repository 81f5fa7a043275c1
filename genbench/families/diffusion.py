"""Denoising diffusion probabilistic models.

J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020 (DDPM);
A. Nichol, P. Dhariwal, Improved DDPM, 2021 (cosine schedule);
T. Salimans, J. Ho, Progressive Distillation, 2022 (x and v prediction);
T. Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022 (EDM).
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, Batch, Borrowed, Likelihood, Networks, Update, register
from genbench.families.bounds import VARIANCES
from genbench.families.paths import PathFamily, scalars
from genbench.ranges import ANY, COUNT, POSITIVE, each

TIME_SAMPLERS = ('uniform', 'log_normal')


@register('diffusion')
class Diffusion(PathFamily):
    """A denoiser trained on L_simple (DDPM, equation 14) at times t = 1/T, 2/T, …, 1."""

    ranges = {'num_timesteps': COUNT, 'log_normal': each((ANY, POSITIVE))}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'cosine',
            'prediction': 'v',
            'num_timesteps': 1000,
            'time_sampler': 'uniform',  # over the steps; or 'log_normal': log σ is normal, with the schedule edm
            'log_normal': (-1.2, 1.2),  # its mean and deviation (Karras et al. 2022, table 1)
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.family.time_sampler not in TIME_SAMPLERS:
            known = did_you_mean(config.family.time_sampler, TIME_SAMPLERS)
            raise UserError(f'family.time_sampler is {config.family.time_sampler!r}. {known}')
        if config.family.time_sampler == 'log_normal' and self.schedule.name != 'edm':
            raise UserError(
                'family.time_sampler=log_normal draws noise levels, which are times of the schedule edm only.'
            )
        for variance in config.evaluation.vlb_variances:
            if variance not in VARIANCES:
                known = did_you_mean(variance, VARIANCES)
                raise UserError(f'evaluation.vlb_variances has {variance!r}, which no bound is called. {known}')

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('denoiser', ('denoiser',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        return scalars(self.regression(networks, batch, key, self.times(batch['key'])).mean())

    def times(self, keys: Array) -> Array:
        """Times to train at, (batch,)."""
        if self.config.family.time_sampler == 'log_normal':
            mean, deviation = self.config.family.log_normal
            drawn = jnp.exp(mean + deviation * rng.normal(keys, 'time'))
            return jnp.clip(drawn, self.schedule.t_min, self.schedule.t_max)
        return self.time(rng.integers(keys, 'time', 1, self.config.family.num_timesteps + 1))

    def time(self, n: Array) -> Array:
        """Time of the integer step n = 0 … T; the last is the schedule's t_max."""
        return self.schedule.step(n, self.config.family.num_timesteps)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        steps = self.config.family.num_timesteps
        first = self.schedule.t_max / steps if self.schedule.curve is None else float(self.time(jnp.asarray(1)))
        chain = {'timesteps': steps, 't_min': first, 't_max': self.schedule.t_max}
        chain |= {'decoder': 'normal around the predicted image', 'clip': self.path_config.clip}
        protocol = {**self.bound.protocol, **chain}
        return (
            *super().likelihoods,
            *(
                Likelihood(
                    f'vlb_{variance}', 'lower_bound', functools.partial(self._vlb, variance),
                    {**protocol, 'variance': variance},
                )
                for variance in self.config.evaluation.vlb_variances
            ),
        )  # fmt: skip

    def _vlb(self, variance: str, networks: Networks, images: Array, given: Given, keys: Array) -> Mapping[str, Array]:
        times = self.time(jnp.arange(1, self.config.family.num_timesteps + 1))
        denoise = self.denoise(networks, given, clip=self.path_config.clip)  # the chain that samples
        return self.bound.in_steps(denoise, images, keys, times, variance)
