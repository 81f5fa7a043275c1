"""Progressive distillation.

T. Salimans, J. Ho, Progressive Distillation for Fast Sampling of Diffusion Models, 2022.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Likelihood, Networks, Scalars, Stage, register
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily, copy
from genbench.interpolants import predictions, steps, weights
from genbench.interpolants.choices import Choice, choose
from genbench.interpolants.options import PathOptions
from genbench.interpolants.predictions import Denoiser
from genbench.interpolants.schedules import Schedule, expand
from genbench.interpolants.solvers import Solver
from genbench.ranges import Range

# They determine the image even at pure noise, where the noise alone does not (section 4)
STABLE = ('x', 'v', 'velocity', 'preconditioned')


class EvenOptions(PathOptions):
    """The options of a sampler whose steps are the ones that were trained."""

    def check(self, schedule: Schedule) -> None:
        if 'spacing' in self.changed:
            raise UserError('The option spacing moves the times of the steps, and this model learned those that are '
                            'even; leave it out.')  # fmt: skip


@register('progressive_distillation')
class ProgressiveDistillation(TaughtFamily):
    """A student that takes in one DDIM step what its teacher takes in two, and then becomes the teacher (algorithm 2).

    A stage is a round. The teacher of the first round is the run 'teacher', and each round halves the number of steps
    N. Its student learns the times of N steps and no others, so samplers take N steps, or fewer that divide N. In an
    earlier round, and in a run with fewer updates than rounds, N is that of the round reached.
    `optimizer.schedule=linear` lowers the learning rate to zero in each round, as in the paper.
    """

    kind = 'fixed steps'
    solvers: ClassVar[Mapping[str, Solver]] = {
        'ddim': Solver(steps.euler, lambda n: n, needs='fixed steps', options=EvenOptions)
    }
    guidable = False  # the student has no null condition of its own
    weights: ClassVar[Mapping[str, Choice]] = {
        name: weights.WEIGHTS[name]
        for name in ('truncated_snr', 'snr_plus_one')  # others vanish at pure noise, where one step starts
    }
    ranges = {'first': Range(1, 2**20), 'last': Range(1, 2**20)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'first': 8,  # N of the first round's student; its teacher takes 2 N steps
            'last': 4,  # N of the last round's student, which is what samplers use
            'weight': 'truncated_snr',  # of the image's squared error (section 4)
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        first, last = config.family.first, config.family.last
        halvings = math.log2(first / last)
        if halvings < 0 or halvings % 1:
            raise UserError(f'family.first is {first} and family.last {last}; each round halves the number of steps, '
                            'so first must be last times a power of two.')  # fmt: skip
        if self.prediction not in STABLE:
            raise UserError(f'The teacher predicts {self.prediction!r}, which does not determine the image where steps '
                            f'start, close to pure noise; use one that predicts {", ".join(STABLE)}.')  # fmt: skip
        if self.schedule.curve is not None:
            raise UserError(f'The teacher has the schedule {self.schedule.name}, whose times for N steps are not among '
                            'those for 2 N; use a teacher with an even one, such as cosine.')  # fmt: skip
        most = self.teacher.most_steps
        if most is not None and 2 * first > most:
            raise UserError(f'family.first is {first}, so the teacher would take {2 * first} steps, but it was trained '
                            f'at the times of {most}; use at most {most // 2}.')  # fmt: skip
        self._weight = choose('family.weight', config.family.weight, self.weights).function

    @property
    def rounds(self) -> tuple[int, ...]:
        """The student's number of steps in each round, from `first` to `last`."""
        first, last = self.config.family.first, self.config.family.last
        return tuple(first // 2**number for number in range(int(math.log2(first / last)) + 1))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """A round of N ≤ 2 steps gets twice as many updates as any other (section 5.2)."""
        shares = [2 if count <= 2 else 1 for count in self.rounds]
        updates, ends = int(self.config.train.num_steps), [0]
        for number in range(1, len(shares)):
            ends.append(max(round(updates * sum(shares[:number]) / sum(shares)), ends[-1] + 1))
        return tuple(
            Stage(f'{count} steps', until=end) for count, end in zip(self.rounds, (*ends[1:], None), strict=True)
        )

    @property
    def count(self) -> int:
        """N in this stage."""
        return self.rounds[-1] if self.span is None else int(self.span.stage.name.split()[0])

    @property
    def most_steps(self) -> int:  # type: ignore[override]  # it changes with the round
        return self.count

    @property
    def default_steps(self) -> int:  # type: ignore[override]
        return self.count

    def why_not(self, steps: int, spacing: str = 'uniform', solver: str = '') -> str:
        if steps <= self.count and self.count % steps == 0:
            return ''
        return f'this model learned to take {self.count}; take that many, or a smaller number that divides it'

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {name: super(ProgressiveDistillation, self).networks(rngs)['student'] for name in ('student', 'teacher')}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        copy(networks['student'], networks['teacher'])

    def carry(self, old: Networks, new: Networks) -> None:
        """Start a round with the averaged student of the last round as the teacher and the student."""
        super().carry(old, new)
        for name in ('student', 'teacher'):
            copy(old.averaged('ema')['student'], new[name])

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """w(t) ‖x̃ − x̂(x_t, t)‖² / d at t = 1/N, 2/N, …, 1 of the way to noise (algorithm 2); without dropout."""
        n, given = self.count, self.given(batch)
        i = rng.integers(batch['key'], 'time', 1, n + 1)
        t, middle, s = (self.schedule.step(2 * i - late, 2 * n) for late in (0, 1, 2))
        x, noise, _ = self.pairs(networks, batch, key)
        x_t = self.schedule.perturb(x, noise, t)
        target = self.target(self._denoiser(networks['teacher'], given), x_t, t, middle, s)
        predicted = self._denoiser(networks['student'], given)(x_t, t).x
        error = jnp.square(predicted - jax.lax.stop_gradient(target)).mean((1, 2, 3))
        return scalars((error * self._weight(self.schedule, 'x', t)).mean())

    def target(self, teacher: Denoiser, x_t: Array, t: Array, middle: Array, s: Array) -> Array:
        """The image x̃ with which one DDIM step from t to s ends where the teacher's two do (appendix G)."""
        x_s = self._ddim(teacher, self._ddim(teacher, x_t, t, middle), middle, s)
        ratio = self.schedule.sigma(s) / self.schedule.sigma(t)
        scale = self.schedule.alpha(s) - ratio * self.schedule.alpha(t)
        return (x_s - expand(ratio, x_t) * x_t) / expand(scale, x_t)

    def _ddim(self, denoise: Denoiser, x_t: Array, t: Array, s: Array) -> Array:
        return self.schedule.perturb(*denoise(x_t, t)[:2], s)

    def _denoiser(self, network: Any, given: Given) -> Denoiser:
        return predictions.denoiser(network, self.prediction, self.schedule, given)

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """None, since a student's prediction is not the mean of the images that x_t may come from."""
        return ()
