"""Denoising diffusion probabilistic models.

J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020 (DDPM);
A. Nichol, P. Dhariwal, Improved DDPM, 2021 (cosine schedule);
T. Salimans, J. Ho, Progressive Distillation, 2022 (x and v prediction);
D. Kingma et al., Variational Diffusion Models, 2021 (VDM: the bound for any schedule).
"""

from typing import Any

import jax
import jax.numpy as jnp

from genbench.families.base import Array, Batch, Likelihood, Networks, Update, register
from genbench.families.paths import PathFamily, scalars
from genbench.networks.decoders import discretised_normal


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
        protocol = {
            'dequantisation': 'none',
            'timesteps': self.config.family.num_timesteps,
            'timestep_draws': self.config.evaluation.vlb_draws,
        }
        return (*super().likelihoods, Likelihood('vlb', 'lower_bound', self._vlb, protocol))

    def _vlb(self, networks: Networks, images: Array, labels: Array | None, keys: Array) -> Array:
        """−(L_T + Σ L_{n−1} + L_0) of DDPM, equation 5, in nats.

        The T − 1 middle terms are estimated without bias from stratified draws of n, one noise each.
        """
        num_terms = self.config.family.num_timesteps - 1
        draws = min(self.config.evaluation.vlb_draws, num_terms)
        x = self.spec.dequantise(images)
        denoise = self.denoise(networks, labels)

        def normal(index):
            return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), self.spec.shape))(keys)

        def middle(total, index):
            u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 100_000 + index)))(keys)
            n = 2 + jnp.floor((index + u) / draws * num_terms)  # n = 2 … T
            return total + self._kl(denoise, x, normal(index), n), None

        total, _ = jax.lax.scan(middle, jnp.zeros(len(x)), jnp.arange(draws))
        first = self._reconstruction(denoise, x, images, normal(200_000))
        return first - total * (num_terms / draws) - self._prior_kl(x)

    def _kl(self, denoise, x: Array, noise: Array, n: Array) -> Array:
        """KL(q(x_s | x_t, x) ‖ q(x_s | x_t, x̂)) with s, t = steps n − 1, n: both Gaussians with the same variance."""
        t, s = self.time(n), self.time(n - 1)
        x_t = self.schedule.perturb(x, noise, t)
        snr_difference = jnp.exp(self.schedule.log_snr(s)) - jnp.exp(self.schedule.log_snr(t))
        error = jnp.square(x - denoise(x_t, t).x).sum((1, 2, 3))
        return 0.5 * snr_difference * error  # VDM, equation 13

    def _reconstruction(self, denoise, x: Array, images: Array, noise: Array) -> Array:
        """log p(image | x_1): the Gaussian of DDPM, equation 13, integrated over the image's bin."""
        t = jnp.full(len(x), self.time(jnp.asarray(1.0)))
        x_t = self.schedule.perturb(x, noise, t)
        alpha, sigma = self.schedule.alpha(t[0]), self.schedule.sigma(t[0])
        return discretised_normal(denoise(x_t, t).x, sigma / alpha, images, self.spec.levels).sum((1, 2, 3))

    def _prior_kl(self, x: Array) -> Array:
        """KL(q(x_T | x) ‖ N(0, σ_T²)), closed form; zero variance mismatch by construction."""
        t = jnp.asarray(self.schedule.t_max)
        ratio = self.schedule.alpha(t) / self.schedule.sigma(t)
        return 0.5 * jnp.square(ratio * x).sum((1, 2, 3))

