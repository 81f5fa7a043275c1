"""Distribution matching distillation.

T. Yin et al., One-step Diffusion with Distribution Matching Distillation, 2024 (DMD);
T. Yin et al., Improved Distribution Matching Distillation for Fast Image Synthesis, 2024 (DMD2).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Scalars, Update, register
from genbench.families.endpoints import LearnedJumps
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily, by_regression, copy
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.ranges import COUNT, PROBABILITY

SMALLEST = 1e-6  # by which a direction is divided at least


@register('distribution_matching')
class DistributionMatching(TaughtFamily, LearnedJumps):
    """A student whose images move to where they are likelier under the teacher than under the student itself.

    The network 'fake' is a denoiser of the student's images. It is trained along with the student, as the teacher was
    on the data. The student jumps to images from the states at the beginning of `jumps` steps, which it reaches with
    its own earlier steps in training as in sampling (DMD2, section 4.5).
    """

    ranges = {'fake_updates': COUNT, 'earliest': PROBABILITY, 'latest': PROBABILITY}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'jumps': 1,  # number of steps that the student learns to sample with
            'fake_updates': 5,  # updates of 'fake' for each of the student (DMD2, section 4.2)
            'earliest': 0.02,  # fraction of the way to noise where the two denoisers begin to be compared
            'latest': 0.98,  # where the comparison ends
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.trainer = by_regression(self.teacher)
        if config.family.earliest >= config.family.latest:
            raise UserError(f'family.earliest is {config.family.earliest:g}; it should be below family.latest '
                            f'({config.family.latest:g}).')  # fmt: skip

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {name: super(DistributionMatching, self).networks(rngs)['student'] for name in ('student', 'fake')}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        copy(networks['student'], networks['fake'])

    @property
    def updates(self) -> tuple[Update, ...]:
        return (
            Update('fake', ('fake',), self.imitate),
            Update('student', ('student',), self.loss, every=self.config.family.fake_updates),
        )

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('student',)

    def imitate(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The teacher's regression, with its times and weights, on images of the student (DMD, equation 6)."""
        given, t = self.given(batch), self.trainer.times(batch['key'])
        x = jax.lax.stop_gradient(self.images(networks, batch['key'], given))
        noise = self.draw(batch['key'], 'noise', self.space.shape)
        return scalars(self.trainer.regression(networks['fake'], x, noise, given, t, key).mean())

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """½ ‖x − sg(x − g)‖² / d, whose gradient by the image x is g / d (DMD, algorithm 2)."""
        given = self.given(batch)
        x = self.images(networks, batch['key'], given, key)
        target = x - self.direction(networks, x, batch['key'], given)
        return scalars(jnp.square(x - jax.lax.stop_gradient(target)).mean() / 2)

    def images(self, networks: Networks, keys: Array, given: Given, key: Array | None = None) -> Array:
        """The student's images (batch, …) after one of its steps; `key` is that of its dropout."""
        x_t, t = self.reached(networks, keys, given)
        return self.jump(networks['student'], x_t, t, given, key)

    def reached(self, networks: Networks, keys: Array, given: Given) -> tuple[Array, Array]:
        """A state (batch, …) where the student begins one of its steps, all equally likely, and the time (batch,)."""
        count = self.config.family.jumps
        taken = rng.integers(keys, 'taken', 0, count)

        def step(number: Array, x: Array) -> Array:
            t, s = (jnp.full(len(x), self.schedule.step(count - n, count)) for n in (number, number + 1))
            noise = self.draw(rng.numbered(rng.named(keys, 'steps'), number), 'noise', self.space.shape)
            moved = self.schedule.perturb(self.jump(networks['student'], x, t, given), noise, s)
            return jnp.where(expand(number < taken, x), moved, x)

        x = jax.lax.fori_loop(0, count - 1, step, self.starts(keys)) if count > 1 else self.starts(keys)
        return jax.lax.stop_gradient(x), self.schedule.step(count - taken, count)

    def direction(self, networks: Networks, x: Array, keys: Array, given: Given) -> Array:
        """g = (x̂_fake − x̂_teacher) / mean |x − x̂_teacher|, away from where images should move (DMD, equations 7 and 8).

        Both denoisers see x at one time, from t_min on. g is in proportion to the difference of their scores.
        """
        low, high = self.config.family.earliest, self.config.family.latest
        t = self.schedule.time(low + (high - low) * rng.uniform(keys, 'time'))
        t = jnp.maximum(t, self.schedule.t_min)
        x_t = self.schedule.perturb(x, self.draw(keys, 'noise', self.space.shape), t)
        real = self.teacher.denoise(networks.borrowed('teacher'), given)(x_t, t).x
        fake = predictions.denoiser(networks['fake'], self.prediction, self.schedule, given)(x_t, t).x
        return (fake - real) / jnp.maximum(jnp.abs(x - real).mean((1, 2, 3), keepdims=True), SMALLEST)
