"""Variational bounds for models on a Gaussian path, over T steps and in continuous time.

J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020 (DDPM);
A. Nichol, P. Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021 (learned variances);
D. Kingma, T. Salimans, B. Poole, J. Ho, Variational Diffusion Models, 2021 (VDM).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.families.base import Networks
from genbench.families.spaces import Space
from genbench.interpolants.predictions import Denoiser, Prediction
from genbench.interpolants.schedules import Schedule, expand
from genbench.networks.decoders import discretised_normal

Array = jax.Array
Terms = dict[str, Array]
# Variances of the reverse chain, as the papers call them. `VariationalBound.in_steps` defines them.
VARIANCES = ('beta', 'fixedlarge', 'fixedsmall', 'learned')
INTERVALS = 1000  # times of the continuous bound come from this many intervals; any number is unbiased


@dataclasses.dataclass(frozen=True)
class VariationalBound:
    """Lower bounds on log P(image). Each is the sum of its terms, in nats, with the shape (batch,).

    * 'prior': −KL(q(x_t | x) ‖ N(0, σ_t²)) at the last time, where sampling starts from N(0, σ_t²);
    * 'diffusion': minus the KLs of the steps, or minus their integral, estimated without bias;
    * 'reconstruction': the log-probability of the image given x_t at the first time, or the log-density of x there,
      with the weight that x has in its space;
    * 'log_prob': the sum of the three.

    Attributes:
      space: the space of x. If images have draws in this space, the bound scores one draw of x with its weight. A draw
        comes from the image's bins, where a model of dequantised images has a density, or from the posterior of a
        first stage. Otherwise x is the centre of the image's bin, and the bound scores the image's probability.
      draws: the number of times at which an image's diffusion term is evaluated, one in each of this many strata.
    """

    space: Space
    schedule: Schedule
    draws: int

    @property
    def protocol(self) -> dict[str, Any]:
        """What both bounds depend on besides the model: how images become x, and at how many times terms are drawn."""
        return {
            **self.space.protocol(int(self.space.drawn)),
            'time_draws': self.draws,
            'times': 'stratified, even in log(1 + SNR)',
        }

    def in_steps(
        self, denoise: Denoiser, images: Array, keys: Array, times: Array, variance: str, networks: Any = None
    ) -> Terms:
        """DDPM, equation 5: the chain over `times` t_1 < … < t_T has T − 1 KLs and a decoder N(x̂, v) at t_1.

        The decoder is integrated over the image's bin (equation 13), or its density taken times the bin's width.

        Args:
          variance: the variance of p(x_s | x_t) and the variance v of the decoder. Let β_t be the variance of
            q(x_t | x_s) and β̃_t that of q(x_s | x_t, x). Then 'beta' is β_t with v = σ(t_1)² (DDPM's β_1; sections 3.2
            and 3.3), 'fixedlarge' is β_t with v = β̃_2, and 'fixedsmall' is β̃_t with v = β̃_2 (the names and the
            decoder of DDPM's code). 'learned' interpolates between 'fixedsmall' and 'beta' by the network's second
            output.
          networks: the model's networks, which a space may evaluate.
        """
        if variance not in VARIANCES:
            raise ValueError(f'{variance!r} is not one of {VARIANCES}.')
        x, weight = self._scored(networks, images, keys)
        first = jnp.full(len(x), times[0])
        predicted = denoise(self.schedule.perturb(x, self._reconstruction_noise(keys), first), first)
        reconstruction = self._decoded(x, images, predicted, times, variance) + weight
        diffusion: Array | float = 0.0
        if len(times) > 1:
            ratio = self._ratio(times[:-1], times[1:])
            shrinkage = jnp.ones_like(ratio) if variance == 'fixedsmall' else ratio
            diffusion = self._diffusion(denoise, x, keys, times, shrinkage, variance == 'learned')
            if variance != 'learned':
                diffusion += self._dims * 0.5 * (jnp.log(shrinkage) + 1 - shrinkage).sum()
        return self._sum(x, times[-1], diffusion, reconstruction)

    def learned_term(self, x: Array, predicted: Prediction, s: Array, t: Array, first: Array, ends: Array) -> Array:
        """The term −L_t of the bound 'learned' for steps from t to s (batch,), in nats, (batch,).

        Args:
          first: the times t_1 and t_2 of the chain.
          ends: whether the step goes from t_1 to the image, (batch,).
        """
        s, t = jnp.where(ends, first[0], s), jnp.where(ends, first[1], t)  # the ends have no β̃, so use any other step
        term = -0.5 * _learned(x, predicted, self._snr(s) - self._snr(t), self._ratio(s, t))
        decoded = self._decoded(x, self.space.spec.quantise(x), predicted, first, 'learned')
        return jnp.where(ends, decoded + (self.space.log_volume if self.space.drawn else 0.0), term)

    def _ratio(self, s: Array, t: Array) -> Array:
        """β̃_t / β_t for steps from t to s."""
        return jnp.square(self.schedule.sigma(s) / self.schedule.sigma(t))

    def _decoded(self, x: Array, images: Array, predicted: Prediction, times: Array, variance: str) -> Array:
        """log p(image | x_1) or the log-density of x given x_1, in nats, (batch,)."""
        if variance == 'learned':
            assert predicted.variance is not None
            small, large = (jnp.log(self._decoder_scale(times, one)) for one in ('fixedsmall', 'beta'))
            scale = jnp.exp(small + predicted.variance * (large - small))
        else:
            scale = self._decoder_scale(times, variance)
        if self.space.drawn:
            found = jax.scipy.stats.norm.logpdf(x, predicted.x, scale)
        else:
            found = discretised_normal(predicted.x, scale, images, self.space.spec.levels)
        return found.sum((1, 2, 3))

    def _decoder_scale(self, times: Array, variance: str) -> Array:
        """√β_1 or √β̃_2; a chain of one step has no β̃_2."""
        alpha, sigma = self.schedule.alpha(times), self.schedule.sigma(times)
        if variance == 'beta' or len(times) == 1:
            return sigma[0]
        beta_2 = jnp.square(sigma[1]) - jnp.square(alpha[1] / alpha[0] * sigma[0])
        return sigma[0] / sigma[1] * jnp.sqrt(beta_2)

    def in_continuous_time(self, denoise: Denoiser, images: Array, keys: Array, networks: Any = None) -> Terms:
        """VDM, equation 11, from t_min to t_max. The decoder at t_min is N(x_t / α, (σ / α)²) and needs no network.

        The decoder is integrated over the image's bin. For densities, the mean of its logarithm over x_t is known.
        """
        x, weight = self._scored(networks, images, keys)
        scale = self._scale(jnp.asarray(self.schedule.t_min))
        if self.space.drawn:
            entropy = jnp.log(scale) + math.log(2 * math.pi * math.e) / 2
            reconstruction = weight - self._dims * entropy
        else:
            seen = x + scale * self._reconstruction_noise(keys)
            reconstruction = discretised_normal(seen, scale, images, self.space.spec.levels).sum((1, 2, 3))
        low, high = self.schedule.t_min ** (1 / 3), self.schedule.t_max ** (1 / 3)
        times = jnp.linspace(low, high, INTERVALS + 1) ** 3
        diffusion = self._diffusion(denoise, x, keys, times)
        return self._sum(x, times[-1], diffusion, reconstruction)

    def _sum(self, x: Array, last: Array, diffusion: Array | float, reconstruction: Array) -> Terms:
        prior = -0.5 * self._snr(last) * jnp.square(x).sum((1, 2, 3))
        terms = {
            'prior': prior,
            'diffusion': jnp.broadcast_to(diffusion, prior.shape),
            'reconstruction': reconstruction,
        }
        return {'log_prob': sum(terms.values(), jnp.zeros(())), **terms}

    def _diffusion(
        self, denoise: Denoiser, x: Array, keys: Array, times: Array, shrinkage: Array | None = None,
        learned: bool = False,
    ) -> Array:  # fmt: skip
        """−Σ ½ (SNR(s) − SNR(t)) r ‖x − x̂(x_t)‖² over neighbours s < t of `times` (VDM, equation 13, where r = 1), or
        its limit for infinitely fine steps, ½ ∫ SNR′(t) ‖x − x̂(x_t)‖² dt (equation 15).

        Intervals (s, t) are drawn in proportion to the change of log(1 + SNR) over them, and their terms are weighted
        by the inverse probability. The terms are proportional to that change for Gaussian data of variance one (Guo,
        Shamai, Verdú 2005, theorem 1).

        Args:
          shrinkage: r, the variance of q(x_s | x_t, x) over that of p(x_s | x_t), for each pair; None is the limit.
          learned: raise `shrinkage` to the power that the network predicts to get r, and use the full KLs.
        """
        snr = self._snr(times)
        information = -jnp.diff(jnp.log1p(snr))
        probability = information + 1e-3 * information.mean()  # so that rounding excludes no interval
        probability /= probability.sum()
        cumulative = jnp.cumsum(probability)

        keys_draws = rng.named(keys, 'times')

        def add(total, index):
            mine = rng.numbered(keys_draws, index)
            chosen = jnp.searchsorted(cumulative, (index + rng.uniform(mine, 'stratum')) / self.draws)
            chosen = jnp.clip(chosen, 0, len(probability) - 1)
            s, t = times[chosen], times[chosen + 1]
            fall = snr[chosen] - snr[chosen + 1]
            if shrinkage is not None and not learned:
                fall *= shrinkage[chosen]
            elif shrinkage is None:
                length, t = t - s, s + rng.uniform(mine, 'place') * (t - s)
                fall = -length * jax.jvp(self._snr, (t,), (jnp.ones_like(t),))[1]
            noise = rng.normal(mine, 'noise', self.space.shape)
            predicted = denoise(self.schedule.perturb(x, noise, t), t)
            if learned:
                term = _learned(x, predicted, fall, shrinkage[chosen])
                return total - 0.5 * term / (self.draws * probability[chosen]), None
            error = jnp.square(x - predicted.x).sum((1, 2, 3))
            error -= self._noise_of_bins(t) * (jnp.square(noise).sum((1, 2, 3)) - self._dims)  # its mean is zero
            return total - 0.5 * fall * error / (self.draws * probability[chosen]), None

        return jax.lax.scan(add, jnp.zeros(len(x)), jnp.arange(self.draws))[0]

    def _noise_of_bins(self, t: Array) -> Array:
        """∂‖x − x̂‖² / ∂‖ε‖² for the best x̂ of Gaussian data with the variance of one image's draws.

        Where the noise is narrower than the bins, a model of dequantised images makes about this error. Replacing the
        drawn error by its known mean lowers the variance of the estimate and leaves its mean unchanged.
        """
        variance = self.space.variance_of_draws
        return self._snr(t) * jnp.square(variance / (1 + self._snr(t) * variance))

    def _snr(self, t: Array) -> Array:
        return jnp.square(self.schedule.alpha(t) / self.schedule.sigma(t))

    def _scale(self, t: Array) -> Array:
        return self.schedule.sigma(t) / self.schedule.alpha(t)

    def _scored(self, networks: Networks, images: Array, keys: Array) -> tuple[Array, Array | float]:
        """Images as the model saw them in training, and the weight of each density."""
        if self.space.drawn:
            return self.space.draw(networks, images, rng.named(keys, 'bins'))
        return self.space.centre(networks, images), 0.0

    @property
    def _dims(self) -> int:
        return math.prod(self.space.shape)

    def _reconstruction_noise(self, keys: Array) -> Array:
        return rng.normal(keys, 'first', self.space.shape)


def _learned(x: Array, predicted: Prediction, fall: Array, ratio: Array) -> Array:
    """2 KL(q(x_s | x_t, x) ‖ p(x_s | x_t)), (batch,), where the variances have the ratio r = ratio^v.

    Args:
      fall: SNR(s) − SNR(t), (batch,).
      ratio: β̃ / β, (batch,).
    """
    assert predicted.variance is not None
    log_r = predicted.variance * expand(jnp.log(ratio), x)
    r = jnp.exp(log_r)
    return (expand(fall, x) * jnp.square(x - predicted.x) * r + r - 1 - log_r).sum((1, 2, 3))
