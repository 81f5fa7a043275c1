"""log p(x) by the probability-flow ODE (Y. Song et al. 2021, equations 39–40; Chen et al. 2018, equation 8).

On every path, the ODE is solved for u = x_t / c over the scale b = σ / c (`Schedule.straightened`):

    du/db = ε̂ − κ x̂,        −d log p(u) / d log b = b div(ε̂ − κ x̂).

Where the level of a pixel is certain, both right-hand sides are constant, so a step of any length is exact. Over t or b
the divergence would be 1/b there. Every step would overestimate its integral, and log p would exceed what is possible.

Near pure noise, x̂ = (x_t − σ ε̂) / α has the error of ε̂ times σ / α, which rises steeply over the last part of b. Steps
are therefore even in log(σ / √(α c)), which is log b near the data and half of log σ / α near pure noise. For a
schedule that ends in pure noise σ / α has no limit, and its networks do not predict noise: steps are even in log b.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench.data.conditions import Given
from genbench.errors import UserError, did_you_mean
from genbench.interpolants.predictions import Prediction
from genbench.interpolants.schedules import Schedule

Array = jax.Array
Denoise = Callable[[Array, Array, Given], Prediction]  # (x_t, t (batch,), conditions (batch, …) or None)
# (u, scalar b, conditions, probes or None) → du/db and b times its divergence (batch,)
Drift = Callable[[Array, Array, Given, Array | None], tuple[Array, Array]]

# Solvers on a fixed grid (Butcher tableaux). Each stage after the first has its place in the step and the weights of
# the earlier slopes. The weights of all slopes in the step follow.
FIXED: dict[str, tuple[tuple[tuple[float, tuple[float, ...]], ...], tuple[float, ...]]] = {
    'heun': (((1, (1,)),), (1 / 2, 1 / 2)),
    'rk4': (((1 / 2, (1 / 2,)), (1 / 2, (0, 1 / 2)), (1, (0, 0, 1))), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
ADAPTIVE = {'dopri5': 'Dopri5', 'tsit5': 'Tsit5'}  # → the class of diffrax
MAX_STEPS = 2**14  # steps of an adaptive solver, accepted and rejected


@dataclasses.dataclass(frozen=True)
class Ode:
    """How the probability-flow ODE is solved: the keys of `evaluation.ode`.

    Attributes:
      solver: a name in `FIXED` or `ADAPTIVE`.
      num_steps: the number of steps on a fixed grid (`grid`). Per step, heun takes 2 evaluations and rk4 takes 4.
      tolerance: the relative and absolute tolerance of an adaptive solver. It applies to an image's state (root mean
        square over its dimensions) and to its log-density. Each image has its own steps, whatever its batch contains.
      probes: the number of Hutchinson probes per image; 0 takes the exact divergence.
    """

    solver: str = 'rk4'
    num_steps: int = 16
    tolerance: float = 1e-4
    probes: int = 1

    def __post_init__(self) -> None:
        if self.solver not in FIXED and self.solver not in ADAPTIVE:
            known = did_you_mean(self.solver, [*FIXED, *ADAPTIVE])
            raise UserError(f'There is no ODE solver {self.solver!r} (evaluation.ode.solver). {known}')
        if self.tolerance <= 0 or self.probes < 0:
            raise UserError('evaluation.ode.tolerance should be above 0, and evaluation.ode.probes at least 0.')

    def refined(self) -> 'Ode':
        """The same solver with twice the steps or a tenth of the tolerance."""
        return dataclasses.replace(self, num_steps=2 * self.num_steps, tolerance=self.tolerance / 10)

    def protocol(self, schedule: Schedule) -> dict[str, Any]:
        """Everything besides the drift that a density depends on."""
        if self.solver in FIXED:
            even = 'log w, w = sigma / sqrt(alpha (alpha + kappa sigma))'
            even = even if _ends(schedule)[-1] else 'log b, b = sigma / (alpha + kappa sigma)'
            steps = {'grid': f'even in {even}', 'ode_steps': self.num_steps}
        else:
            steps = {'grid': 'adaptive in log b, each image its own', 'tolerance': self.tolerance}
        divergence = f'hutchinson-rademacher-{self.probes}' if self.probes else 'exact'
        ends = {'t_min': schedule.t_min, 't_max': schedule.t_max}
        return {'solver': self.solver, **steps, 'divergence': divergence, **ends}


def exact_divergence(slope: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """The slope and its divergence. One forward derivative per dimension: d × the cost of Hutchinson's estimate."""
    size = x[0].size

    def column(index):
        direction = jnp.zeros((size,)).at[index].set(1.0).reshape(x.shape[1:])
        return jax.jvp(slope, (x,), (jnp.broadcast_to(direction, x.shape),))[1].reshape(len(x), size)[:, index]

    return slope(x), jax.lax.map(column, jnp.arange(size)).sum(0)


def hutchinson_divergence(slope: Callable[[Array], Array], x: Array, probes: Array) -> tuple[Array, Array]:
    """The slope, and vᵀ ∂f/∂x v averaged over probes (count, batch, …) (Hutchinson 1990; Grathwohl et al. 2019)."""
    value, push = jax.linearize(slope, x)
    products = jax.vmap(lambda v: (v * push(v)).reshape(len(v), -1).sum(1))(probes)
    return value, products.mean(0)


def rademacher(keys: Array, count: int, shape: tuple[int, ...]) -> Array:
    """±1 probes (count, batch, …), drawn once per trajectory from each image's own key."""
    draw = lambda key: jax.random.rademacher(key, (count, *shape), jnp.float32)  # noqa: E731
    return jnp.moveaxis(jax.vmap(draw)(keys), 1, 0)


def log_density(schedule: Schedule, denoise: Denoise, x: Array, keys: Array, ode: Ode, given: Given = None) -> Array:
    """log p of x at t_min in nats, (batch,), from the ODE from t_min to t_max and the Gaussian prior at t_max.

    If an adaptive solver needs more than MAX_STEPS steps for an image, the image's log-density is NaN.

    Args:
      denoise: predicts the clean image and the noise in x_t. Their velocity α' x̂ + σ' ε̂ is the drift of the ODE.
      keys: one key per image, for the probes.
      given: conditions, passed on to `denoise`.

    Raises:
      UserError: the solver is adaptive, but diffrax is not installed.
    """
    probes = rademacher(keys, ode.probes, x.shape[1:]) if ode.probes else None

    def drift(u, b, given, probes):
        t = schedule.time_of(b)
        scale, _ = schedule.straightened(t)

        def slope(u):
            found = denoise(scale * u, jnp.full(len(u), t), given)
            return found.noise - schedule.kappa * found.x

        value, divergence = exact_divergence(slope, u) if probes is None else hutchinson_divergence(slope, u, probes)
        return value, b * divergence

    scale, low, high, kappa = _ends(schedule)
    if ode.solver in FIXED:
        end, total = _on_fixed_grid(drift, grid(low, high, kappa, ode.num_steps), x / scale, ode, given, probes)
    else:
        end, total = _adaptively(drift, (low, high), x / scale, ode, given, probes)
    log_prior = jax.scipy.stats.norm.logpdf(end, scale=high).reshape(len(x), -1).sum(1)
    return log_prior + total - x[0].size * math.log(scale)


def _ends(schedule: Schedule) -> tuple[float, float, float, float]:
    """c and b at t_min, b at t_max, and κ (0 for a schedule that ends in pure noise)."""
    still = schedule.still or schedule
    with jax.ensure_compile_time_eval():
        ends = jnp.asarray([schedule.t_min, schedule.t_max])
        (scale, _), (low, high) = (np.asarray(value, float).tolist() for value in still.straightened(ends))
        kappa = float(still.kappa) if still.alpha(ends[1]) > 0 else 0.0
    return scale, low, high, kappa


def grid(low: float, high: float, kappa: float, num_steps: int) -> np.ndarray:
    """b from `low` to `high` (num_steps + 1,), even in log w, w = σ / √(α c) = b / √(1 − κ b)."""
    first, last = (b / math.sqrt(1 - kappa * b) for b in (low, high))
    w = np.geomspace(first, last, num_steps + 1)
    return 2 * w / (np.sqrt(np.square(kappa * w) + 4) + kappa * w)


def _on_fixed_grid(
    drift: Drift, scales: np.ndarray, u: Array, ode: Ode, given: Given, probes: Array | None
) -> tuple[Array, Array]:
    """u at the last b and the integral of the divergence, by an explicit Runge–Kutta rule over b.

    The divergence is integrated over log b, exactly where it is a polynomial in log b through the rule's places.
    """
    stages, weights = FIXED[ode.solver]
    places = np.asarray([0, *(place for place, _ in stages)])
    by_step = jnp.asarray([_in_log(places, np.asarray(weights), ratio) for ratio in scales[1:] / scales[:-1]])
    starts, lengths = jnp.asarray(scales[:-1]), jnp.asarray(np.diff(scales))

    def body(index, state):
        u, total = state
        b, step, log_weights = starts[index], lengths[index], tuple(by_step[index])
        slopes, divergences = zip(drift(u, b, given, probes), strict=True)
        for place, before in stages:
            slope, divergence = drift(u + step * _sum(before, slopes), b + place * step, given, probes)
            slopes, divergences = (*slopes, slope), (*divergences, divergence)
        return u + step * _sum(weights, slopes), total + _sum(log_weights, divergences)

    return jax.lax.fori_loop(0, ode.num_steps, body, (u, jnp.zeros(len(u))))


def _sum(weights: tuple[Any, ...], values: tuple[Array, ...]) -> Array:
    used = [w * value for w, value in zip(weights, values, strict=True) if not (isinstance(w, int) and w == 0)]
    return sum(used, jnp.zeros(()))


def _in_log(places: np.ndarray, weights: np.ndarray, ratio: float) -> tuple[float, ...]:
    """Weights for the values at `places` in the step from b to ratio · b, for their integral over log b.

    They integrate the polynomial in log b through the distinct places. Values at the same place split their weight in
    proportion to `weights`.
    """
    distinct = np.unique(places)
    powers = np.arange(len(distinct))
    nodes = np.log1p(distinct * (ratio - 1)) / math.log(ratio)
    found = np.linalg.solve(nodes ** powers[:, None], 1 / (powers + 1)) * math.log(ratio)
    shares = [weights[places == place].sum() for place in places]
    return tuple(float(found[distinct == p][0] * w / s) for p, w, s in zip(places, weights, shares, strict=True))


def _adaptively(
    drift: Drift, ends: tuple[float, float], u: Array, ode: Ode, given: Given, probes: Array | None
) -> tuple[Array, Array]:
    """The same over log b by diffrax, which solves every image as a batch of one with its own steps."""
    diffrax = require_diffrax()

    def norm(state):
        return jnp.maximum(jnp.sqrt(jnp.square(state[0]).mean()), jnp.abs(state[1]).max())

    def one(u, given, probes):
        def over_log_b(log_b, state, _):
            b = jnp.exp(log_b)
            slope, divergence = drift(state[0], b, given, probes)
            return b * slope, divergence

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(over_log_b),
            getattr(diffrax, ADAPTIVE[ode.solver])(),
            t0=math.log(ends[0]),
            t1=math.log(ends[1]),
            dt0=None,
            y0=(u, jnp.zeros(len(u))),
            stepsize_controller=diffrax.PIDController(rtol=ode.tolerance, atol=ode.tolerance, norm=norm),
            adjoint=diffrax.ForwardMode(),
            max_steps=MAX_STEPS,
            throw=False,
        )
        end, total = (saved[0] for saved in solution.ys)
        return end, jnp.where(solution.result == diffrax.RESULTS.successful, total, jnp.nan)

    alone = [jax.tree.map(lambda leaf, axis=axis: jnp.expand_dims(leaf, axis + 1), tree)
             for tree, axis in ((given, 0), (probes, 1))]  # fmt: skip
    end, total = jax.vmap(one, in_axes=(0, 0, 1))(u[:, None], *alone)
    return end[:, 0], total[:, 0]


def require_diffrax() -> Any:
    """The module diffrax, or a UserError if it is not installed."""
    try:
        import diffrax
    except ImportError:
        raise UserError("Adaptive ODE solvers need diffrax: pip install -e '.[ode]', or use heun or rk4.") from None
    return diffrax
