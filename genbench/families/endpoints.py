"""The basis of consistency models: a network f(x_t, t) that jumps to the end of the trajectory through x_t.

Y. Song, P. Dhariwal, M. Chen, I. Sutskever, Consistency Models, 2023.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import perceptual
from genbench.families.base import Array, Borrowed, Likelihood, Networks
from genbench.families.paths import PathFamily
from genbench.families.perceptual import PerceptualFamily
from genbench.families.spaces import Pixels
from genbench.interpolants import predictions, steps
from genbench.ranges import NOT_NEGATIVE, Range

# For these predictions x̂ tends to x_t as σ → 0, so f(x_t, t) = x̂ satisfies the boundary condition of section 3
BOUNDARY_PREDICTIONS = ('noise', 'v', 'velocity', 'preconditioned')


class EndpointFamily(PathFamily):
    """Samples in a few steps. There is no likelihood, since f is not the drift of a flow."""

    kind = 'endpoint'
    default_steps = 2
    guidable = False  # f is never trained with a null condition
    ranges = {'huber': NOT_NEGATIVE}
    HUBER = 0.00054  # c / √d of the pseudo-Huber distance √(‖a − b‖² + c²) − c in d dimensions

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if self.prediction not in BOUNDARY_PREDICTIONS:
            raise UserError(f'The network predicts {self.prediction!r}, but the predicted image must tend to x_t as '
                            f'the noise vanishes, as with {", ".join(BOUNDARY_PREDICTIONS)}.')  # fmt: skip

    def jump(self, network: Any, x_t: Array, t: Array, given: Given, key: Array | None = None) -> Array:
        """f(x_t, t), the predicted end of the trajectory. f(x, 0) is x, where some predictions have no limit."""
        denoise = predictions.denoiser(network, self.prediction, self.schedule, given, key=key)
        ended = (t <= 0)[:, None, None, None]
        return jnp.where(ended, x_t, denoise(x_t, self.before_the_end(t)).x)

    def before_the_end(self, t: Array) -> Array:
        """t, with 0 replaced by t_min: networks cannot be evaluated at 0, and the result there goes unused."""
        return jnp.where(t > 0, t, self.schedule.t_min)

    def solver_step(self, denoise: predictions.Denoiser, x_t: Array, t: Array, s: Array) -> Array:
        """One step of the solver heun with a teacher's denoiser, with separate times for each image."""
        first = steps.slope(self.schedule, denoise(x_t, t))
        guess = steps.advance(self.schedule, x_t, first, t, s)
        second = steps.slope(self.schedule, denoise(guess, self.before_the_end(s)))
        inside = (s > 0)[:, None, None, None]
        return jnp.where(inside, steps.advance(self.schedule, x_t, (first + second) / 2, t, s), guess)

    def distance(self, difference: Array) -> Array:
        """√(‖·‖² + c²) − c with c = huber √d (Song & Dhariwal 2024, section 3.3), or the mean square; (batch,)."""
        squared = jnp.square(difference).sum((1, 2, 3))
        dims, huber = difference[0].size, self.config.family.huber
        c = huber * dims**0.5
        return jnp.sqrt(squared + c**2) - c if huber else squared / dims

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        return ()


class ComparedJumps(PerceptualFamily, EndpointFamily):
    """Jumps that may be compared by LPIPS instead of `distance`, if weights are given.

    The images are enlarged to 224 pixels a side, as in the official code of consistency models.
    """

    enlarged = 224

    def apart(self, networks: Networks, x: Array, y: Array) -> Array:
        """The distance of pairs of images (batch, …) in the space that the family models, (batch,)."""
        if self.perceptual is None:
            return self.distance(x - y)
        assert isinstance(self.space, Pixels)
        distance = self.perceptual.distance(networks, x / self.space.scale, y / self.space.scale)
        return self.config.family.perceptual_weight * distance

    @property
    def notes(self) -> Mapping[str, str]:
        return perceptual.notes(self.perceptual) if self.perceptual else {}


class LearnedJumps(EndpointFamily):
    """An f(x_t, t) that learned the times of `jumps` steps, and no others."""

    ranges = {'jumps': Range(1, 64)}

    @property
    def default_steps(self) -> int:  # type: ignore[override]
        return self.config.family.jumps

    def why_not(self, steps: int, spacing: str = 'uniform', solver: str = '') -> str:
        jumps = self.config.family.jumps
        if spacing != 'uniform':
            return f'this model learned the times of spacing=uniform, not of {spacing}; leave spacing out'
        even = self.schedule.curve is None and jumps % steps == 0
        return (
            '' if even or steps in (1, jumps) else f'this model learned to take {jumps} (family.jumps); take that many'
        )
