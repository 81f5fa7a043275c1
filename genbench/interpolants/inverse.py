"""Solvers of inverse problems y = A x + N(0, noise² I) whose prior is a model on a path, without further training.

Each changes what a sampler's step sees or where it ends, so that all work with every sampler. With (x̂, ε̂) the
prediction at x_t = α x + σ ε:

- 'replacement': A x_s becomes what it is for the true image with fresh noise (Y. Song et al., Score-Based Generative
  Modeling through SDEs, 2021, appendix I.2). With repeated steps it is RePaint (A. Lugmayr et al. 2022, algorithm 1).
- 'ddnm': x̂ becomes x̂ + A⁺ (y − A x̂) (Y. Wang, J. Yu, J. Zhang, Zero-Shot Image Restoration Using Denoising Diffusion
  Null-Space Model, 2023, equation 13).
- 'pigdm': the score gains ∂x̂/∂x_tᵀ Aᵀ (r² A Aᵀ + noise² I)⁻¹ (y − A x̂) (J. Song, A. Vahdat, M. Mardani, J. Kautz,
  Pseudoinverse-Guided Diffusion Models for Inverse Problems, 2023, equations 6 and 7).
- 'dps': x_s moves down the gradient of ‖y − A x̂‖² in x_t (H. Chung et al., Diffusion Posterior Sampling for General
  Noisy Inverse Problems, 2023, algorithm 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genbench import rng
from genbench.data.degradations import Degradation
from genbench.errors import UserError
from genbench.interpolants.predictions import Denoiser, Prediction, with_image
from genbench.interpolants.schedules import Schedule, expand

Array = jax.Array
After = Callable[[Array, Array, Array], Array]  # (x_s, s, one key per image) → x_s
ILL = 10.0  # the condition of A above which its pseudo-inverse says little
FAINT = 1e-3  # the least α at which x_t says enough about the image for 'pigdm'


class Observation(NamedTuple):
    """What is known of images, y (batch, …), in units of the data space, and how a sampler uses it.

    Attributes:
      noise: the standard deviation of the noise in y.
      method: a key of METHODS.
      weight: ζ' of 'dps', or the factor of the term of 'pigdm'.
      spread: the standard deviation of images that 'pigdm' and, with noise, 'ddnm' assume: x given x_t has the variance
        r² = spread² σ² / (α² spread² + σ²). The papers take 1.
    """

    degradation: Degradation
    y: Array
    noise: float = 0.0
    method: str = 'replacement'
    weight: float = 1.0
    spread: float = 1.0

    def around(self, schedule: Schedule, denoise: Denoiser) -> tuple[Denoiser, After]:
        """The denoiser for one step, and a function of where the step ends. Both belong to this step alone."""
        return METHODS[self.method].around(self, schedule, denoise)

    def finished(self, x: Array) -> Array:
        """The final images. Replacement takes what is known as it is."""
        return self.degradation.filled(x, self.y) if self.method == 'replacement' else x

    def misfit(self, x: Array) -> Array:
        return self.y - self.degradation(x)

    def variance(self, alpha: Array, sigma: Array) -> Array:
        """r², the assumed variance of x given x_t (ΠGDM, section 3.1)."""
        wide = self.spread**2
        return wide * jnp.square(sigma) / (wide * jnp.square(alpha) + jnp.square(sigma))

    def pulled(self, x: Array, r2: Array) -> Array:
        """Aᵀ (r² A Aᵀ + noise² I)⁻¹ (y − A x)."""
        a = self.degradation
        return a.adjoint(a.whitened(self.misfit(x), r2, self.noise**2))


def _replacement(known: Observation, schedule: Schedule, denoise: Denoiser) -> tuple[Denoiser, After]:
    def after(x: Array, s: Array, keys: Array) -> Array:
        drawn = rng.normal(keys, 'known', x.shape[1:])
        return known.degradation.filled(x, schedule.perturb(known.y, known.degradation(drawn), s))

    return denoise, after


def _ddnm(known: Observation, schedule: Schedule, denoise: Denoiser) -> tuple[Denoiser, After]:
    """Without noise in y, the pseudo-inverse; with noise, r² Aᵀ (r² A Aᵀ + noise² I)⁻¹, which tends to it."""

    def corrected(x_t: Array, t: Array) -> Prediction:
        predicted = denoise(x_t, t)
        if known.noise:
            r2 = known.variance(expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t))
            x = predicted.x + r2 * known.pulled(predicted.x, r2)
        else:
            x = known.degradation.filled(predicted.x, known.y)
        return with_image(schedule, x, x_t, t)._replace(variance=predicted.variance)

    return corrected, _stay


def _pigdm(known: Observation, schedule: Schedule, denoise: Denoiser) -> tuple[Denoiser, After]:
    """x̂ and ε̂ of the score ∇ log p(x_t) + ∇ log p(y | x_t). The term is left out where x_t is nearly pure noise."""

    def corrected(x_t: Array, t: Array) -> Prediction:
        def image(x_t: Array) -> tuple[Array, Prediction]:
            predicted = denoise(x_t, t)
            return predicted.x, predicted

        x, pull, predicted = jax.vjp(image, x_t, has_aux=True)
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        (slope,) = pull(known.pulled(x, known.variance(alpha, sigma)))
        gain = jnp.where(alpha > FAINT, known.weight * jnp.square(sigma) / jnp.maximum(alpha, FAINT), 0)
        return with_image(schedule, x + gain * slope, x_t, t)._replace(variance=predicted.variance)

    return corrected, _stay


def _dps(known: Observation, schedule: Schedule, denoise: Denoiser) -> tuple[Denoiser, After]:
    """The step ζ' / ‖y − A x̂‖ along the gradient of ‖y − A x̂‖² (section 3.2), at the first prediction of the step."""
    slopes: list[Array] = []

    def watched(x_t: Array, t: Array) -> Prediction:
        if slopes:
            return denoise(x_t, t)

        def distance(x_t: Array) -> tuple[Array, Prediction]:
            predicted = denoise(x_t, t)
            squared = jnp.square(known.misfit(predicted.x)).reshape(len(x_t), -1).sum(1)
            return jnp.sqrt(jnp.maximum(squared, 1e-20)), predicted

        norm, pull, predicted = jax.vjp(distance, x_t, has_aux=True)
        slopes.extend(pull(jnp.ones_like(norm)))
        return predicted

    def after(x: Array, s: Array, keys: Array) -> Array:
        return x - 2 * known.weight * slopes[0]  # ∇ ‖·‖² / ‖·‖ = 2 ∇ ‖·‖

    return watched, after


def _stay(x: Array, s: Array, keys: Array) -> Array:
    return x


class Method(NamedTuple):
    """A solver of inverse problems.

    Attributes:
      around: see `Observation.around`.
      kinds: the kinds of network that it works with; () for all.
      linear: whether A has to be linear.
      reads: the options of `Observation` that change it.
      differentiates: whether it takes a gradient through the network wherever a step begins.
    """

    around: Callable[[Observation, Schedule, Denoiser], tuple[Denoiser, After]]
    kinds: tuple[str, ...] = ()
    linear: bool = True
    reads: tuple[str, ...] = ()
    differentiates: bool = False


METHODS = {
    'replacement': Method(_replacement),
    'ddnm': Method(_ddnm, ('denoiser', 'endpoint'), reads=('spread',)),
    'dps': Method(_dps, ('denoiser',), linear=False, reads=('weight',), differentiates=True),
    'pigdm': Method(_pigdm, ('denoiser',), linear=False, reads=('weight', 'spread'), differentiates=True),
}


def fitting(kind: str) -> list[str]:
    """The methods that work with this kind of network."""
    return [name for name, one in METHODS.items() if not one.kinds or kind in one.kinds]


def check(options: Any, degradation: Degradation, kind: str) -> None:
    """Raise a UserError with the reason if the method cannot solve this problem, or not with this kind of network."""
    method = METHODS[options.posterior]
    if method.kinds and kind not in method.kinds:
        raise UserError(f'posterior={options.posterior} needs E[x | x_t], the mean of the clean images given a noisy '
                        'one, and this network gives a point of a trajectory instead; use '
                        f'{" or ".join(fitting(kind))}.')  # fmt: skip
    for name in sorted({'weight', 'spread'} & {*options.changed}):
        reading = [other for other, one in METHODS.items() if name in one.reads]
        if options.posterior not in reading:
            raise UserError(f'posterior={options.posterior} does not read {name}; leave it out, or use '
                            f'{" or ".join(reading)}.')  # fmt: skip
    if options.posterior == 'ddnm' and 'spread' in options.changed and not options.noise:
        raise UserError('posterior=ddnm reads spread only where there is noise; leave it out, or add noise=….')
    if method.linear and not degradation.linear:
        raise UserError(f'posterior={options.posterior} fills in what a linear degradation shows, and '
                        f'{options.problem} rounds; use dps or pigdm.')  # fmt: skip
    if degradation.condition > ILL and options.posterior == 'replacement':
        raise UserError(f'posterior=replacement inverts {options.problem}, which magnifies noise '
                        f'{degradation.condition:.0f} times; use ddnm, dps or pigdm.')  # fmt: skip
    if degradation.condition > ILL and not options.noise:
        raise UserError(f'The inverse of problem={options.problem} magnifies errors, even those of rounding, '
                        f'{degradation.condition:.0f} times; add noise=0.01 or more to the sampler.')  # fmt: skip
    if options.problem == 'noise' and not options.noise:
        raise UserError('problem=noise without noise shows the whole image; add noise=0.2 or another deviation to the '
                        'sampler.')  # fmt: skip
