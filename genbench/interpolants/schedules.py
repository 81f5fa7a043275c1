"""Schedules α(t), σ(t) of a Gaussian path, with derivatives by automatic differentiation."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError, did_you_mean
from genbench.interpolants import spacings

Array = jax.Array
EARLIEST = 1e-12  # the earliest time in a search for a time


@dataclasses.dataclass(frozen=True)
class Schedule:
    """x_t = α(t) x + σ(t) ε.

    Attributes:
      name: the name in configs.
      alpha, sigma: elementwise functions of t.
      t_min: the smallest time at which a network is trained (σ > 0 there). A density may be followed to earlier times.
      t_max: the time at which sampling starts, where x_t is assumed to be N(0, σ(t_max)²).
      condition: the networks' view of t. Their sinusoids have the angles 1000 · condition(t) · frequency.
      curve: fraction of the way from the smallest noise (0) to t_max (1) → time; None for t_max · fraction.
      still: for a schedule with parameters, one without parameters that has the same ends.
    """

    name: str
    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    t_min: float
    t_max: float
    condition: Callable[[Array], Array] = lambda t: t
    curve: Callable[[Array], Array] | None = None
    still: 'Schedule | None' = None

    def coefficients(self, t: Array) -> tuple[Array, Array, Array, Array]:
        """(α, σ, dα/dt, dσ/dt) at t, each with t's shape."""
        one = jnp.ones_like(t)
        alpha, alpha_dot = jax.jvp(self.alpha, (t,), (one,))
        sigma, sigma_dot = jax.jvp(self.sigma, (t,), (one,))
        return alpha, sigma, alpha_dot, sigma_dot

    def log_snr(self, t: Array) -> Array:
        """log α² / σ²."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time(self, share: Array) -> Array:
        """The time at a fraction of the schedule's way to noise, which is t_max at 1."""
        return self.t_max * share if self.curve is None else self.curve(share)

    def step(self, ahead: Array, count: Array | int, spacing: str = 'uniform') -> Array:
        """The time at which `ahead` of `count` steps remain; exactly 0 if none remains.

        The argument counts remaining steps, not completed ones: XLA multiplies by the reciprocal of n, and then
        1 − n / n is not always zero.

        Args:
          spacing: as `spacings.read_spacing` returns it.
        """
        return spacings.spaced(spacing)(self, ahead, count)

    def straightened(self, t: Array) -> tuple[Array, Array]:
        """(c, σ / c) with c = α + κ σ. The state x_t / c = (1 − κ b) x + b ε moves along a straight line in b = σ / c.

        The line runs from the data to the start of sampling, with κ = (1 − α) / σ at t_max, so both are finite
        everywhere. For the schedule edm, c = 1 and b = σ, as in Karras et al. 2022; for a straight path, c = 1, b = t.
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        scale = alpha + self.kappa * sigma
        return scale, sigma / scale

    def time_of(self, b: Array) -> Array:
        """The time at which `straightened` has σ / c = b, at most t_max, with b's shape; by bisection over log t."""

        def halve(_, span):
            low, high = span
            middle = (low + high) / 2
            below = self.straightened(jnp.exp(middle))[1] < b
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        span = jnp.log(jnp.asarray(EARLIEST)), jnp.log(jnp.asarray(self.t_max))
        span = jnp.broadcast_to(span[0], jnp.shape(b)), jnp.broadcast_to(span[1], jnp.shape(b))
        return jnp.minimum(jnp.exp(jax.lax.fori_loop(0, 40, halve, span)[1]), self.t_max)

    def time_at(self, level: Array) -> Array:
        """The time at which σ / α is `level`, at most t_max, with the shape of `level`."""
        return self.time_of(level / (1 + self.kappa * level))

    @property
    def kappa(self) -> Array:
        end = jnp.asarray(self.t_max)
        return (1 - self.alpha(end)) / self.sigma(end)

    def stopping_at(self, ratio: float) -> 'Schedule':
        """The same path with σ / α = `ratio` at t_min, which may move earlier than the trained t_min, but not later."""
        with jax.ensure_compile_time_eval():  # even if a caller is being traced
            times = jnp.geomspace(EARLIEST, self.t_min, 4096)
            ratios = np.asarray(self.sigma(times) / self.alpha(times), float)
        log_time = np.interp(math.log(ratio), np.log(ratios), np.log(np.asarray(times, float)))
        return self if ratio >= ratios[-1] else dataclasses.replace(self, t_min=float(np.exp(log_time)))

    def perturb(self, x: Array, noise: Array, t: Array) -> Array:
        """x_t for images x and noise (batch, …) at times t (batch,)."""
        return expand(self.alpha(t), x) * x + expand(self.sigma(t), x) * noise


def expand(values: Array, like: Array) -> Array:
    """Reshape (batch,) to (batch, 1, …) with as many axes as `like`; scalars stay scalars."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim)) if values.ndim else values


def linear(beta_1: float = 1e-4, beta_T: float = 0.02, steps: int = 1000) -> Schedule:
    """DDPM's linear βs (Ho et al. 2020, section 4), continued to real t.

    log ᾱ(n) = Σ log(1 − β_j) is expanded in powers of β, whose sums are polynomials in n. The schedule is therefore
    smooth, and equals DDPM's table at t = n / 1000 up to Σ β⁵ / 5 < 2e-7.
    """
    slope = (beta_T - beta_1) / (steps - 1)

    def log_alpha_bar(t):
        n = steps * t
        # Faulhaber's sums Σ j, Σ j², Σ j³, Σ j⁴ over j = 0 … n − 1
        s1, s2, s3 = n * (n - 1) / 2, (n - 1) * n * (2 * n - 1) / 6, (n * (n - 1) / 2) ** 2
        s4 = s2 * (3 * n * (n - 1) - 1) / 5
        first = beta_1 * n + slope * s1
        second = beta_1**2 * n + 2 * beta_1 * slope * s1 + slope**2 * s2
        third = beta_1**3 * n + 3 * beta_1**2 * slope * s1 + 3 * beta_1 * slope**2 * s2 + slope**3 * s3
        fourth = beta_1**4 * n + 4 * beta_1**3 * slope * s1 + 6 * beta_1**2 * slope**2 * s2
        fourth += 4 * beta_1 * slope**3 * s3 + slope**4 * s4
        return -(first + second / 2 + third / 3 + fourth / 4)

    return Schedule(
        name='linear',
        alpha=lambda t: jnp.exp(log_alpha_bar(t) / 2),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(log_alpha_bar(t))),
        t_min=1 / steps,
        t_max=1.0,
    )


def cosine(offset: float = 0.008) -> Schedule:
    """ᾱ(t) = f(t) / f(0), f(t) = cos²(π/2 · (t + s) / (1 + s)) (Nichol & Dhariwal 2021, equation 17).

    They clip β at 0.999. Here time ends at t_max = 0.995 instead, which avoids a division by zero and keeps the
    schedule smooth: step n of T is at t = 0.995 n / T. Over 1000 steps ᾱ differs from theirs by at most 0.0045. It ends
    at 6.1e-5 (α = 0.008), where theirs ends at 2.4e-9.
    """
    rate = math.pi / 2 / (1 + offset)
    start = math.cos(rate * offset)

    def alpha(t):
        return jnp.cos(rate * (t + offset)) / start

    def sigma(t):  # √(1 − α²) as a product, which is exactly 0 at t = 0 and does not cancel
        return jnp.sqrt(jnp.sin(rate * t) * jnp.sin(rate * (t + 2 * offset))) / start

    return Schedule('cosine', alpha, sigma, t_min=1e-3, t_max=0.995)


def straight() -> Schedule:
    """x_t = (1 − t) x + t ε: the conditional optimal-transport path (Lipman et al. 2023, equation 22, time reversed)
    and rectified flow (Liu et al. 2023, equation 1)."""
    return Schedule('straight', lambda t: 1 - t, lambda t: t, t_min=1e-3, t_max=1.0)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Schedule:
    """x_t = x + t ε, where t is the noise level itself.

    The times of N steps follow Karras et al. 2022, equation 5: N − 1 steps are evenly spaced in t^(1/ρ) from σ_max to
    σ_min, and the last step goes to zero.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def curve(share):
        return (low + share * (high - low)) ** rho

    def condition(t):  # networks multiply it by a thousand: the angles are frequencies times c_noise = ¼ ln σ
        return jnp.log(jnp.maximum(t, sigma_min)) / 4 / 1000

    return Schedule(
        'edm', jnp.ones_like, lambda t: t, t_min=sigma_min, t_max=sigma_max, condition=condition, curve=curve
    )


def vp(first: float = 0.1, last: float = 20.0) -> Schedule:
    """The variance-preserving SDE, β(t) = β_min + t (β_max − β_min) (Y. Song et al. 2021, equation 33).

    Networks see 999 t, as in the official code, where other schedules show them 1000 t.
    """
    return Schedule(
        'vp', lambda t: jnp.exp(_log_alpha(t, first, last)),
        lambda t: jnp.sqrt(-jnp.expm1(2 * _log_alpha(t, first, last))),
        t_min=1e-5, t_max=1.0, condition=lambda t: 0.999 * t,
    )  # fmt: skip


def subvp(first: float = 0.1, last: float = 20.0) -> Schedule:
    """The sub-VP SDE, with the mean of `vp` and the square of its variance (Y. Song et al. 2021, equation 29)."""
    sigma = lambda t: -jnp.expm1(2 * _log_alpha(t, first, last))  # noqa: E731
    return dataclasses.replace(vp(first, last), name='subvp', sigma=sigma)


def _log_alpha(t: Array, first: float, last: float) -> Array:
    return -0.25 * t**2 * (last - first) - 0.5 * t * first


def ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Schedule:
    """x_t = x + t ε, where t is the noise level itself; steps are even in log t (Y. Song et al. 2021, equation 31).

    Their levels from 0.01 to 50 are for pixels in [0, 1]. Pixels here are in [−1, 1].
    """

    def condition(t):  # networks multiply it by a thousand: log σ for pixels in [0, 1]
        return jnp.log(jnp.maximum(t, sigma_min) / 2) / 1000

    return Schedule(
        've', jnp.ones_like, lambda t: t, t_min=sigma_min, t_max=sigma_max, condition=condition,
        curve=lambda share: sigma_min * (sigma_max / sigma_min) ** share,
    )  # fmt: skip


def trig(sigma_data: float = 0.5, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
    """x_t = cos(t) x + sin(t) σ_d ε, between the noise levels of `edm` (Lu & Song 2025, TrigFlow, section 3)."""
    return Schedule(
        'trig', jnp.cos, lambda t: sigma_data * jnp.sin(t),
        t_min=math.atan(sigma_min / sigma_data), t_max=math.atan(sigma_max / sigma_data),
    )  # fmt: skip


def learned(
    shape: Callable[[Array], Array] = lambda share: share, log_snrs: tuple[float, float] = (13.3, -10.0)
) -> Schedule:
    """α² = sigmoid(−γ), σ² = sigmoid(γ), where −γ = log SNR falls between fixed ends (Kingma et al. 2021, section 3.2).

    Before t_min, where no network is trained, σ / α falls to 0 with t. Networks see γ, scaled to [0, 1] between the
    ends. They therefore learn about noise levels and not about times.

    Args:
      shape: the progress of γ, which rises from 0 to 1 with the fraction of time. By default γ is linear in time.
      log_snrs: log SNR at t_min and at t_max.
    """
    first, low, high = 1e-3, -log_snrs[0], -log_snrs[1]

    def scaled(t):
        before = jnp.minimum(jnp.log(jnp.maximum(t, EARLIEST) / first), 0)
        return shape(jnp.clip((t - first) / (1 - first), 0, 1)) + 2 * before / (high - low)

    def gamma(t):
        return low + (high - low) * scaled(t)

    def alpha(t):
        return jnp.sqrt(jax.nn.sigmoid(-gamma(t)))

    def sigma(t):
        return jnp.where(t > 0, jnp.sqrt(jax.nn.sigmoid(gamma(t))), 0)

    return Schedule('learned', alpha, sigma, t_min=first, t_max=1.0, condition=scaled)


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    'linear': linear,
    'cosine': cosine,
    'straight': straight,
    'edm': edm,
}


# The schedules of score SDE, which have their own tests.
SCORE_SDE: dict[str, Callable[[], Schedule]] = {'vp': vp, 'subvp': subvp, 've': ve}


def zero_snr(schedule: Schedule) -> Schedule:
    """The schedule with √ᾱ moved and stretched so that it ends at zero (Lin et al. 2024, algorithm 1).

    They keep the value of the first step. Here that of the data, 1, is kept. The two differ by less than 1e-6.
    """

    def last(t):
        return schedule.alpha(jnp.full_like(t, schedule.t_max))

    def alpha(t):
        return (schedule.alpha(t) - last(t)) / (1 - last(t))

    def sigma(t):  # √(1 − α²) without cancellation
        return schedule.sigma(t) * jnp.sqrt((1 + alpha(t)) / ((1 + schedule.alpha(t)) * (1 - last(t))))

    return dataclasses.replace(schedule, alpha=alpha, sigma=sigma)


def shifted(schedule: Schedule, factor: float) -> Schedule:
    """The schedule with `factor` times the noise level σ / α at each time.

    For images of d pixels a side, the factor d / 64 is the shift by 2 log(64 / d) in log SNR of Hoogeboom et al. 2023
    (simple diffusion, section 3.1). On `straight` it is the shift of Esser et al. 2024, equation 23.
    """

    def norm(t):
        alpha, sigma = schedule.alpha(t), factor * schedule.sigma(t)
        return alpha + sigma if schedule.name == 'straight' else jnp.sqrt(jnp.square(alpha) + jnp.square(sigma))

    return dataclasses.replace(
        schedule, alpha=lambda t: schedule.alpha(t) / norm(t), sigma=lambda t: factor * schedule.sigma(t) / norm(t)
    )


def get(text: str) -> Schedule:
    """The schedule that configs call NAME, NAME:zero_snr or NAME:shift=FACTOR. 'learned' gives it untrained."""
    name, _, change = text.partition(':')
    known = {**SCHEDULES, **SCORE_SDE, 'trig': trig, 'learned': learned}
    if name not in known:
        raise UserError(f'There is no schedule {name!r}. {did_you_mean(name, known)}')
    schedule = known[name]()
    if not change:
        return schedule
    if name not in ('linear', 'cosine', 'vp', 'straight') or (name, change) == ('straight', 'zero_snr'):
        raise UserError(f'family.schedule is {text!r}, and {name} cannot be changed so; linear, cosine and vp take '
                        'zero_snr and shift=FACTOR, and straight takes shift=FACTOR.')  # fmt: skip
    if change == 'zero_snr':
        return dataclasses.replace(zero_snr(schedule), name=text)
    try:
        factor = float(change.removeprefix('shift='))
    except ValueError:
        factor = math.nan
    if not 1e-3 <= factor <= 1e3 or not change.startswith('shift='):
        raise UserError(f'family.schedule is {text!r}; write {name}, {name}:zero_snr or {name}:shift=FACTOR with a '
                        'factor from 0.001 to 1000.')  # fmt: skip
    return dataclasses.replace(shifted(schedule, factor), name=text)
