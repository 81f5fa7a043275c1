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
from genbench.interpolants.predictions import Denoiser
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
            'dequantisation': self.config.family.dequantisation,
            'timesteps': self.config.family.num_timesteps,
            'timestep_draws': self.config.evaluation.vlb_draws,
        }
        return (*super().likelihoods, Likelihood('vlb', 'lower_bound', self._vlb, protocol))

    def _vlb(self, networks: Networks, images: Array, labels: Array | None, keys: Array) -> Array:
        """−(L_T + Σ L_{n−1} + L_0) of DDPM, equation 5, in nats (batch,).

        The T − 1 middle terms are estimated without bias: steps n are drawn in strata of equal change of log SNR,
        where the terms are nearly equal, and weighted by their probability; one noise for each.
        """
        x, keys = self._scored_images(images, keys)
        denoise, draws = self.denoise(networks, labels), self.config.evaluation.vlb_draws
        probability = self._step_probabilities()

        def normal(index):
            return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), self.spec.shape))(keys)

        def middle(total, index):
            u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, draws + 1 + index)))(keys)
            chosen = jnp.searchsorted(jnp.cumsum(probability), (index + u) / draws)
            chosen = jnp.clip(chosen, 0, len(probability) - 1)
            kl = self._kl(denoise, x, normal(index), chosen + 2)
            return total + kl / (draws * probability[chosen]), None

        total, _ = jax.lax.scan(middle, jnp.zeros(len(x)), jnp.arange(draws))
        return self._reconstruction(denoise, x, images, normal(draws)) - total - self._prior_kl(x)

    def _scored_images(self, images: Array, keys: Array) -> tuple[Array, Array]:
        """Images as the model was trained on them: dequantised by one uniform draw, or at the centres of their bins."""
        if self.config.family.dequantisation == 'none':
            return self.spec.dequantise(images), keys
        keys_u, keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        u = jax.vmap(lambda key: jax.random.uniform(key, self.spec.shape))(keys_u)
        return self.spec.dequantise(images, u), keys

    def _step_probabilities(self) -> Array:
        """Probability of drawing the middle terms n = 2 … T, proportional to the change of log SNR over the step."""
        log_snr = self.schedule.log_snr(self.time(jnp.arange(1, self.config.family.num_timesteps + 1)))
        log_snr = jnp.clip(log_snr, -20, 20)  # some paths end in pure noise
        change = log_snr[:-1] - log_snr[1:] + 1e-6
        return change / change.sum()

    def _kl(self, denoise: Denoiser, x: Array, noise: Array, n: Array) -> Array:
        """KL(q(x_s | x_t, x) ‖ q(x_s | x_t, x̂)), s and t the steps n − 1 and n: Gaussians of the same variance.

        ½ (SNR(s) − SNR(t)) ‖x − x̂‖² (VDM, equation 13).
        """
        t, s = self.time(n), self.time(n - 1)
        x_t = self.schedule.perturb(x, noise, t)
        difference = jnp.exp(self.schedule.log_snr(s)) - jnp.exp(self.schedule.log_snr(t))
        return 0.5 * difference * jnp.square(x - denoise(x_t, t).x).sum((1, 2, 3))

    def _reconstruction(self, denoise: Denoiser, x: Array, images: Array, noise: Array) -> Array:
        """log p(image | x_1) under N(x̂, (σ_1 / α_1)²).

        Integrated over the image's bin (DDPM, equation 13) for images at the centres of their bins; for dequantised
        ones the density, times the width of a bin.
        """
        t = self.time(jnp.ones(len(x)))
        mean = denoise(self.schedule.perturb(x, noise, t), t).x
        scale = self.schedule.sigma(t[0]) / self.schedule.alpha(t[0])
        if self.config.family.dequantisation == 'none':
            return discretised_normal(mean, scale, images, self.spec.levels).sum((1, 2, 3))
        return (jax.scipy.stats.norm.logpdf(x, mean, scale) + self.spec.log_bin_width).sum((1, 2, 3))

    def _prior_kl(self, x: Array) -> Array:
        """KL(N(α_T x, σ_T²) ‖ N(0, σ_T²)), the noise that sampling starts from."""
        t = jnp.asarray(self.schedule.t_max)
        return 0.5 * jnp.square(self.schedule.alpha(t) / self.schedule.sigma(t) * x).sum((1, 2, 3))
