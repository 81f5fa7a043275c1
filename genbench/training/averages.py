"""Power-function averages of parameters, and the average of any width reconstructed after training.

T. Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2024 (EDM2), sections 3 and C.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench.errors import UserError
from genbench.families.base import Average
from genbench.training import processes
from genbench.training import state as states
from genbench.training.files import read_npz, write_npz

Tree = Any

DENSE = 2**13  # after this many steps, a power-function average samples the steps instead of using each one


def exponent(width: float) -> float:
    """γ of the profile p(τ) ∝ τ^γ on [0, t] whose standard deviation is `width` · t (EDM2, equation 126).

    σ² = (γ + 1) / ((γ + 2)² (γ + 3)) has one root γ ≥ 0 for 0 < σ ≤ 12^(−1/2).
    """
    if not 0 < width <= 12**-0.5:
        raise UserError(f'The width of an average is {width}; it should be above 0 and at most {12**-0.5:.4f}.')
    squared = width**-2
    roots = np.roots([1, 7, 16 - squared, 12 - squared])
    return float(roots.real.max())


def share(gamma: float, done: Any) -> Any:
    """1 − β of the update θ̂ ← β θ̂ + (1 − β) θ after `done` = 1, 2, … steps, an int32 array (EDM2, equation 127).

    β = (1 − m / done)^(γ + 1) at every m-th step, and 1 between them. m is 1 for the first DENSE steps and doubles each
    time the number of steps doubles: the same profile, sampled at DENSE points or more. Smaller shares would be lost in
    float32, where changes of θ̂ below its last bit vanish. For the same reason 1 − β is not computed from β, which is
    close to one.
    """
    doublings = jnp.maximum(31 - jax.lax.clz(jnp.maximum(done // DENSE, 1)), 0)
    stride = jnp.left_shift(1, doublings)
    step = -jnp.expm1((gamma + 1) * jnp.log1p(-stride / done))
    return jnp.where(done % stride == 0, step, 0.0)


def weights(times: Sequence[int], gammas: Sequence[float], time: int, gamma: float) -> np.ndarray:
    """Coefficients with which snapshots of the profiles (times, gammas) best approximate the profile (time, gamma).

    Least squares over profiles on the real line (EDM2, algorithm 3).
    """
    t, g = np.asarray(times, np.float64), np.asarray(gammas, np.float64)
    left = _products(t[:, None], g[:, None], t[None], g[None])
    right = _products(t, g, np.float64(time), np.float64(gamma))
    return np.linalg.lstsq(left, right, rcond=None)[0]


def _products(t_a: Any, g_a: Any, t_b: Any, g_b: Any) -> Any:
    """∫ p_a p_b for power-function profiles (EDM2, equation 135)."""
    least, most = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    of_later = np.where(t_a < t_b, g_b, g_a)
    return (g_a + 1) * (g_b + 1) / ((g_a + g_b + 1) * most) * (least / most) ** of_later


class Snapshots:
    """Power-function averages of a run at several steps, in one file per step."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def steps(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob('*.npz') if path.stem.isdigit())

    def save(self, step: int, tracked: Sequence[Average], trees: Mapping[str, Tree]) -> None:
        """Save the power-function averages among `tracked` as they stand after `step` updates."""
        widths = {average.name: average.width for average in tracked if average.width}
        named = states.flatten({f'{width:.6g}': trees[name] for name, width in widths.items()})
        values = {name: states.whole(value) for name, value in named.items()}
        if processes.is_first():
            write_npz(self._folder / f'{step}.npz', values)

    def drop_after(self, step: int) -> None:
        """Delete the snapshots of steps that a resumed run will repeat."""
        for later in self.steps():
            if later > step and processes.is_first():
                (self._folder / f'{later}.npz').unlink()

    def reconstruct(self, width: float, step: int, like: Tree, began: Mapping[str, int]) -> Tree:
        """The average of `width` as it would stand after `step` updates, shaped like {network: parameters}.

        Args:
          began: {network: the step at which its average began}. The average's time is counted from that step.

        Raises:
          UserError: fewer than two snapshots lie between that step and `step`, or the width is out of range.
        """
        gamma = exponent(width)
        found = [(at, self._read(at)) for at in self.steps() if at <= step]
        total: dict[str, np.ndarray] = {}
        for first in sorted(set(began.values())):
            networks = [name for name, at in began.items() if at == first]
            parts = [
                (at - first, float(w), values) for at, one in found if at > first for w, values in one.items()
            ]  # fmt: skip
            if len({at for at, _, _ in parts}) < 2:
                since = f' after step {first}, where this average begins,' if first else ''
                raise UserError(
                    f'{self._folder} has {len({at for at, _, _ in parts})} snapshots{since} up to step {step}, but an '
                    'average of another width needs at least two. Train with train.power_widths and '
                    'train.snapshot_every.'
                )
            share = weights([at for at, _, _ in parts], [exponent(w) for _, w, _ in parts], step - first, gamma)
            for weight, (_, _, values) in zip(share, parts, strict=True):
                for name, value in values.items():
                    if name.partition('/')[0] in networks:
                        total[name] = total.get(name, 0.0) + weight * value.astype(np.float64)
        return states.unflatten({name: value.astype(np.float32) for name, value in total.items()}, like)

    def _read(self, step: int) -> dict[str, dict[str, np.ndarray]]:
        """{width: {parameter: values}}"""
        values = read_npz(self._folder / f'{step}.npz')
        if values is None:
            raise UserError(f'The snapshot {self._folder / f"{step}.npz"} cannot be read.')
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, value in values.items():
            width, _, rest = name.partition('/')
            found.setdefault(width, {})[rest] = value
        return found
