"""Schedules α(t), σ(t) of a Gaussian path, with their derivatives by automatic differentiation."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError, did_you_mean

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Schedule:
    """x_t = α(t) x + σ(t) ε.

    Attributes:
      name: what configs call it.
      alpha, sigma: elementwise functions of t.
      t_min: the smallest time at which a network is trained (σ > 0 there); a density may be followed further down.
      t_max: the time at which sampling starts, and x_t is taken to be N(0, σ(t_max)²).
      condition: what networks see of t, in [0, 1] or of that order.
      grid: share of a solver's way that is still ahead, from 1 (noise) to 0 (data) → time.
    """

    name: str
    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    t_min: float
    t_max: float
    condition: Callable[[Array], Array] = lambda t: t
    grid: Callable[[Array], Array] | None = None

    def coefficients(self, t: Array) -> tuple[Array, Array, Array, Array]:
        """(α, σ, dα/dt, dσ/dt) at t, each of t's shape."""
        one = jnp.ones_like(t)
        alpha, alpha_dot = jax.jvp(self.alpha, (t,), (one,))
        sigma, sigma_dot = jax.jvp(self.sigma, (t,), (one,))
        return alpha, sigma, alpha_dot, sigma_dot

    def log_snr(self, t: Array) -> Array:
        """log α² / σ²."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, ahead: Array) -> Array:
        """The time of a solver with the share `ahead` of its way to go: t_max at 1, and 0, exactly, at 0.

        The share that is ahead, not the share that is done: 1 − n / n is not always zero once XLA has multiplied by
        the reciprocal of n.
        """
        return self.t_max * ahead if self.grid is None else self.grid(ahead)

    def stopping_at(self, ratio: float) -> 'Schedule':
        """The same path with σ / α = `ratio` at t_min, which may come earlier than trained, but not later."""
        with jax.ensure_compile_time_eval():  # also where a caller is being traced
            times = jnp.geomspace(1e-12, self.t_min, 4096)
            ratios = np.asarray(self.sigma(times) / self.alpha(times), float)
        log_time = np.interp(math.log(ratio), np.log(ratios), np.log(np.asarray(times, float)))
        return self if ratio >= ratios[-1] else dataclasses.replace(self, t_min=float(np.exp(log_time)))

    def perturb(self, x: Array, noise: Array, t: Array) -> Array:
        """x_t for images x and noise (batch, …) at times t (batch,)."""
        return expand(self.alpha(t), x) * x + expand(self.sigma(t), x) * noise


def expand(values: Array, like: Array) -> Array:
    """(batch,) → (batch, 1, …) with as many axes as `like`; scalars stay scalars."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


def linear(beta_1: float = 1e-4, beta_T: float = 0.02, steps: int = 1000) -> Schedule:
    """DDPM's linear βs (Ho et al. 2020, section 4), continued to real t.

    log ᾱ(n) = Σ log(1 − β_j) is expanded in powers of β; the sums of powers are polynomials in n, so the schedule is
    smooth and equals DDPM's table at t = n / 1000 up to Σ β⁴ / 4 < 1e-5.
    """
    slope = (beta_T - beta_1) / (steps - 1)

    def log_alpha_bar(t):
        n = steps * t
        # Faulhaber's sums Σ j, Σ j², Σ j³ over j = 0 … n − 1
        s1, s2, s3 = n * (n - 1) / 2, (n - 1) * n * (2 * n - 1) / 6, (n * (n - 1) / 2) ** 2
        first = beta_1 * n + slope * s1
        second = beta_1**2 * n + 2 * beta_1 * slope * s1 + slope**2 * s2
        third = beta_1**3 * n + 3 * beta_1**2 * slope * s1 + 3 * beta_1 * slope**2 * s2 + slope**3 * s3
        return -(first + second / 2 + third / 3)

    return Schedule(
        name='linear',
        alpha=lambda t: jnp.exp(log_alpha_bar(t) / 2),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(log_alpha_bar(t))),
        t_min=1 / steps,
        t_max=1.0,
    )


def cosine(offset: float = 0.008) -> Schedule:
    """ᾱ(t) = f(t) / f(0), f(t) = cos²(π/2 · (t + s) / (1 + s)) (Nichol & Dhariwal 2021, equation 17).

    Where they clip β at 0.999, sampling starts at t_max = 0.995 (α = 0.008), so that no division by zero is met.
    """
    rate = math.pi / 2 / (1 + offset)
    start = math.cos(rate * offset)

    def alpha(t):
        return jnp.cos(rate * (t + offset)) / start

    def sigma(t):  # √(1 − α²) as a product: exactly 0 at t = 0, without cancellation
        return jnp.sqrt(jnp.sin(rate * t) * jnp.sin(rate * (t + 2 * offset))) / start

    return Schedule('cosine', alpha, sigma, t_min=1e-3, t_max=0.995)


def straight() -> Schedule:
    """x_t = (1 − t) x + t ε: the conditional optimal-transport path (Lipman et al. 2023, equation 22, time reversed)
    and rectified flow (Liu et al. 2023, equation 1)."""
    return Schedule('straight', lambda t: 1 - t, lambda t: t, t_min=1e-3, t_max=1.0)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """x_t = x + t ε with t the noise level itself.

    Solver times are spaced evenly in t^(1/ρ) as in Karras et al. 2022, equation 5, with zero in the place of σ_min.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def grid(ahead):
        return jnp.where(ahead <= 0, 0.0, (low + ahead * (high - low)) ** rho)

    def condition(t):
        return (jnp.log(jnp.maximum(t, sigma_min)) - math.log(sigma_min)) / math.log(sigma_max / sigma_min)

    return Schedule('edm', jnp.ones_like, lambda t: t, t_min=sigma_min, t_max=sigma_max, condition=condition, grid=grid)


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    'linear': linear,
    'cosine': cosine,
    'straight': straight,
    'edm': edm,
}


def get(name: str) -> Schedule:
    """The schedule that configs call `name`."""
    if name not in SCHEDULES:
        raise UserError(f'No schedule is called {name!r}. {did_you_mean(name, SCHEDULES)}')
    return SCHEDULES[name]()
