"""log p(x) by the probability-flow ODE (Y. Song et al. 2021, equations 39–40; Chen et al. 2018, equation 8)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genbench.errors import UserError, did_you_mean
from genbench.interpolants.schedules import Schedule

Array = jax.Array
Velocity = Callable[[Array, Array, Array | None], Array]  # (x_t, t (batch,), labels (batch,) or None) → dx_t/dt
# (x_t, scalar t, labels, probes or None) → the velocity and its divergence (batch,)
Drift = Callable[[Array, Array, Array | None, Array | None], tuple[Array, Array]]

# Solvers on a fixed grid (Butcher's tableaux): for each stage after the first its place in the step and the weights of
# the slopes before it; then the weights of all slopes in the step.
FIXED: dict[str, tuple[tuple[tuple[float, tuple[float, ...]], ...], tuple[float, ...]]] = {
    'heun': (((1, (1,)),), (1 / 2, 1 / 2)),
    'rk4': (((1 / 2, (1 / 2,)), (1 / 2, (0, 1 / 2)), (1, (0, 0, 1))), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
ADAPTIVE = {'dopri5': 'Dopri5', 'tsit5': 'Tsit5'}  # → the class of diffrax
MAX_STEPS = 2**14  # of an adaptive solver, taken and refused


@dataclasses.dataclass(frozen=True)
class Ode:
    """How the probability-flow ODE is solved: the keys of `evaluation.ode`.

    Attributes:
      solver: of `FIXED` or `ADAPTIVE`.
      num_steps: of a fixed grid, even in the cube root of t: small times, where the drift bends, get more of them.
      tolerance: relative and absolute, of an adaptive solver, for an image's state (root mean square over its
        dimensions) and for its log-density alike. Each image has its own steps, whatever shares its batch.
      probes: Hutchinson probes for each image; 0 takes the exact divergence.
    """

    solver: str = 'heun'
    num_steps: int = 32
    tolerance: float = 1e-4
    probes: int = 1

    def __post_init__(self) -> None:
        if self.solver not in FIXED and self.solver not in ADAPTIVE:
            known = did_you_mean(self.solver, [*FIXED, *ADAPTIVE])
            raise UserError(f'No ODE solver is called {self.solver!r} (evaluation.ode.solver). {known}')
        if self.tolerance <= 0 or self.probes < 0:
            raise UserError('evaluation.ode.tolerance should be above 0, and evaluation.ode.probes at least 0.')

    def refined(self) -> 'Ode':
        """Twice the steps, or a tenth of the tolerance."""
        return dataclasses.replace(self, num_steps=2 * self.num_steps, tolerance=self.tolerance / 10)

    def protocol(self, schedule: Schedule) -> dict[str, Any]:
        """What a density depends on beside the drift."""
        if self.solver in FIXED:
            steps = {'grid': 'even in the cube root of t', 'ode_steps': self.num_steps}
        else:
            steps = {'grid': 'adaptive, each image its own', 'tolerance': self.tolerance}
        divergence = f'hutchinson-rademacher-{self.probes}' if self.probes else 'exact'
        ends = {'t_min': schedule.t_min, 't_max': schedule.t_max}
        return {'solver': self.solver, **steps, 'divergence': divergence, **ends}


def exact_divergence(slope: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    """Slope and its divergence, one forward derivative for each dimension: d × the cost of Hutchinson's estimate."""
    size = x[0].size

    def column(index):
        direction = jnp.zeros((size,)).at[index].set(1.0).reshape(x.shape[1:])
        return jax.jvp(slope, (x,), (jnp.broadcast_to(direction, x.shape),))[1].reshape(len(x), size)[:, index]

    return slope(x), jax.lax.map(column, jnp.arange(size)).sum(0)


def hutchinson_divergence(slope: Callable[[Array], Array], x: Array, probes: Array) -> tuple[Array, Array]:
    """Slope and vᵀ ∂f/∂x v averaged over the probes (count, batch, …) (Hutchinson 1990; Grathwohl et al. 2019)."""
    value, push = jax.linearize(slope, x)
    products = jax.vmap(lambda v: (v * push(v)).reshape(len(v), -1).sum(1))(probes)
    return value, products.mean(0)


def rademacher(keys: Array, count: int, shape: tuple[int, ...]) -> Array:
    """±1 probes (count, batch, …), drawn once for each trajectory from each image's own key."""
    draw = lambda key: jax.random.rademacher(key, (count, *shape), jnp.float32)  # noqa: E731
    return jnp.moveaxis(jax.vmap(draw)(keys), 1, 0)


def log_density(
    schedule: Schedule, velocity: Velocity, x: Array, keys: Array, ode: Ode, labels: Array | None = None
) -> Array:
    """log p of x at t_min in nats, shape (batch,): the ODE from t_min to t_max, and the Gaussian prior there.

    An image for which an adaptive solver needs more than MAX_STEPS steps has the log-density NaN.

    Args:
      velocity: drift of the probability-flow ODE.
      keys: one key an image, for the probes.
      labels: handed on to `velocity`.

    Raises:
      UserError: the solver is adaptive, and diffrax is not installed.
    """
    probes = rademacher(keys, ode.probes, x.shape[1:]) if ode.probes else None

    def drift(x, t, labels, probes):
        slope = lambda x: velocity(x, jnp.full(len(x), t), labels)  # noqa: E731
        return exact_divergence(slope, x) if probes is None else hutchinson_divergence(slope, x, probes)

    integrate = _on_fixed_grid if ode.solver in FIXED else _adaptively
    end, total = integrate(drift, schedule, x, ode, labels, probes)
    sigma = schedule.sigma(jnp.asarray(schedule.t_max))
    return jax.scipy.stats.norm.logpdf(end, scale=sigma).reshape(len(x), -1).sum(1) + total


def _on_fixed_grid(
    drift: Drift, schedule: Schedule, x: Array, ode: Ode, labels: Array | None, probes: Array | None
) -> tuple[Array, Array]:
    """x at t_max and the integral of the divergence, by an explicit Runge–Kutta rule."""
    stages, weights = FIXED[ode.solver]
    low, high = schedule.t_min ** (1 / 3), schedule.t_max ** (1 / 3)

    def time(fraction):
        return (low + fraction * (high - low)) ** 3

    def moved(state, step, weights, slopes):
        pairs = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
        return tuple(part + step * sum(w * slope[index] for w, slope in pairs) for index, part in enumerate(state))

    def body(index, state):
        t, s = time(index / ode.num_steps), time((index + 1) / ode.num_steps)
        slopes = [drift(state[0], t, labels, probes)]
        for place, before in stages:
            x, _ = moved(state, s - t, before, slopes)
            slopes.append(drift(x, (1 - place) * t + place * s, labels, probes))
        return moved(state, s - t, weights, slopes)

    return jax.lax.fori_loop(0, ode.num_steps, body, (x, jnp.zeros(len(x))))


def _adaptively(
    drift: Drift, schedule: Schedule, x: Array, ode: Ode, labels: Array | None, probes: Array | None
) -> tuple[Array, Array]:
    """The same by diffrax, which takes every image, as a batch of one, by steps of its own."""
    diffrax = require_diffrax()

    def norm(state):
        return jnp.maximum(jnp.sqrt(jnp.square(state[0]).mean()), jnp.abs(state[1]).max())

    def one(x, labels, probes):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, state, _: drift(state[0], t, labels, probes)),
            getattr(diffrax, ADAPTIVE[ode.solver])(),
            t0=schedule.t_min,
            t1=schedule.t_max,
            dt0=None,
            y0=(x, jnp.zeros(len(x))),
            stepsize_controller=diffrax.PIDController(rtol=ode.tolerance, atol=ode.tolerance, norm=norm),
            adjoint=diffrax.ForwardMode(),
            max_steps=MAX_STEPS,
            throw=False,
        )
        end, total = (saved[0] for saved in solution.ys)
        return end, jnp.where(solution.result == diffrax.RESULTS.successful, total, jnp.nan)

    alone = [None if leaf is None else jnp.expand_dims(leaf, axis + 1) for leaf, axis in ((labels, 0), (probes, 1))]
    end, total = jax.vmap(one, in_axes=(0, 0, 1))(x[:, None], *alone)
    return end[:, 0], total[:, 0]


def require_diffrax() -> Any:
    """The module diffrax."""
    try:
        import diffrax
    except ImportError:
        raise UserError("Adaptive ODE solvers need diffrax: pip install -e '.[ode]', or take heun or rk4.") from None
    return diffrax
