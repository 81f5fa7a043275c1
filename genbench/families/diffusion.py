"""Denoising diffusion probabilistic models.

J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020 (DDPM);
A. Nichol, P. Dhariwal, Improved DDPM, 2021 (cosine schedule);
T. Salimans, J. Ho, Progressive Distillation, 2022 (x and v prediction).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genbench.families.base import Array, Batch, Likelihood, Networks, Update, register
from genbench.families.paths import PathFamily, scalars


@register('diffusion')
class Diffusion(PathFamily):
    """A denoiser trained on L_simple (DDPM, equation 14) at times t = 1/T, 2/T, …, 1."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {'schedule': 'cosine', 'prediction': 'v', 'num_timesteps': 1000}
        return {**base, 'family': {**base['family'], **options}}

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('denoiser', ('denoiser',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        key_t, key = jax.random.split(key)
        n = jax.random.randint(key_t, batch['label'].shape, 1, self.config.family.num_timesteps + 1)
        errors = self.regression(networks, batch, key, self.time(n))
        return scalars(errors.mean())

    def time(self, n: Array) -> Array:
        """Time of the integer step n = 0 … T; the last is the schedule's t_max."""
        return n / self.config.family.num_timesteps * self.schedule.t_max

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        steps = self.config.family.num_timesteps
        chain = {'timesteps': steps, 't_min': self.schedule.t_max / steps, 't_max': self.schedule.t_max}
        protocol = {**self.bound.protocol, **chain, 'decoder': 'normal around the predicted image'}
        return (*super().likelihoods, Likelihood('vlb', 'lower_bound', self._vlb, protocol))

    def _vlb(self, networks: Networks, images: Array, labels: Array | None, keys: Array) -> Mapping[str, Array]:
        times = self.time(jnp.arange(1, self.config.family.num_timesteps + 1))
        return self.bound.in_steps(self.denoise(networks, labels), images, keys, times)
