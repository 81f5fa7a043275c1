"""Consistency trajectory models (CTM), distilled from a diffusion or flow-matching teacher.

D. Kim et al., Consistency Trajectory Models: Learning Probability Flow ODE Trajectory of Diffusion, 2024.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import networks as modules
from genbench import rng
from genbench.data.conditions import Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families import judges
from genbench.families.adversarial import balance
from genbench.families.base import Array, Average, Batch, Borrowed, Networks, Sampler, Scalars, Update, register
from genbench.families.endpoints import EndpointFamily
from genbench.families.judges import Judge
from genbench.families.paths import scalars
from genbench.families.taught import TaughtFamily, by_regression
from genbench.interpolants import predictions
from genbench.interpolants.schedules import expand
from genbench.interpolants.steps import FlowMap
from genbench.networks.gradients import losses_and_norms
from genbench.ranges import COUNT_OR_NONE, LARGEST, NOT_NEGATIVE, SHARE, Range


@register('consistency_trajectory')
class ConsistencyTrajectory(TaughtFamily, EndpointFamily):
    """A student G(x_t, t, s) that jumps along the teacher's trajectory from any time to any earlier one.

    The networks are the 'student' and its average, the 'target'. With `adversarial` there is a 'discriminator' as well.
    The student is the teacher's network with a second time. It starts as the teacher, whatever s is, and remains a
    denoiser at s = t. Teachers with network.name=edm2 are refused, since their normalised weights have no zero to start
    from.
    """

    kind = 'map'
    default_steps = 1
    ranges = {
        'discretisation': Range(2, LARGEST), 'solver_steps': Range(1, 1000), 'target_decay': SHARE,
        'denoising': NOT_NEGATIVE, 'adversarial': NOT_NEGATIVE, 'adversarial_start': COUNT_OR_NONE, **judges.RANGES,
    }  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'discretisation': 18,  # N, the number of steps from t_max to 0 of the teacher's solver
            'solver_steps': 17,  # the most of these steps that the teacher takes at once
            'target_decay': 0.999,  # μ, decay of the target network
            'denoising': 1.0,  # weight of the teacher's regression at s = t
            'huber': cls.HUBER,  # 0: mean squared distance
            'adversarial': 0.0,  # weight of the adversarial loss, beside its adaptive one; 0: no discriminator
            'adversarial_start': 0,  # the step from which this loss counts
            **judges.OPTIONS,
        }
        return {**base, 'family': {**base['family'], **options}}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        self.trainer = by_regression(self.teacher)
        if self.teacher.config.network.name == 'edm2':
            raise UserError('The teacher has network.name=edm2, whose normalised weights cannot start a second time at '
                            'zero, so a student would not start as its teacher; use another one, for example '
                            'unet or dit.')  # fmt: skip
        self.judge = Judge(config.family, self.teacher) if config.family.adversarial else None

    @property
    def averaged(self) -> tuple[str, ...]:
        return ('student',)

    @property
    def updates(self) -> tuple[Update, ...]:
        return (*((self.judge.update(self.discriminator_loss),) if self.judge else ()), *super().updates)

    @property
    def averages(self) -> tuple[Average, ...]:
        target = Average('target', ('student',), self.config.family.target_decay, warmup=False)
        return (*super().averages, target)

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        config, teacher = self.teacher.config.network, self.trainer
        options: dict[str, Any] = {'second_time': True, 'outputs': teacher.outputs}
        student = modules.denoiser(config, self.space, teacher.forms, rngs, **options)
        judge = {'discriminator': self.judge.network(self.forms, rngs)} if self.judge else {}
        return {'student': student, **judge}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Copy the teacher's weights. What it does not have, which sees the second time, starts at zero."""
        student = networks['student']
        nnx.update(student, jax.tree.map(jnp.zeros_like, nnx.state(student)))
        super().initialise(networks, batch, key)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """Soft consistency matching, plus denoising score matching with its weight, plus the adversarial loss."""
        options, indices, given = self.config.family, self.indices(batch['key']), self.given(batch)
        (n, k, _), (x_t, t, u, s) = indices, self.states(networks, batch, key, indices)
        x_u = self.solved(self.teacher.denoise(networks.borrowed('teacher'), given), x_t, n, k)
        target = networks.averaged('target')['student']
        wanted = jax.lax.stop_gradient(self.estimate(networks, target, x_u, u, s, given, key))

        def judged(student: Any) -> tuple[Array, Array]:
            x = self.estimate(networks, student, x_t, t, s, given, key)
            reward = self.judge.reward(networks, x, batch['key'], given) if self.judge else jnp.zeros(())
            return self.distance(x - wanted).mean(), reward

        denoising, told = self.denoising(networks, batch, key), {}
        if not self.judge:
            matching = judged(networks['student'])[0]
            total = matching + options.denoising * denoising
        else:
            (matching, adversarial), norms = losses_and_norms(networks['student'], judged)
            weight = jnp.where(step >= options.adversarial_start, balance(*norms), 0.0)
            told = {'adversarial': adversarial, 'weight': weight}
            total = matching + options.denoising * denoising + options.adversarial * weight * adversarial
        return scalars(total, matching=matching, denoising=denoising, **told)

    def discriminator_loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, Scalars]:
        """The discriminator's loss on real images and on those that end the student's jumps (section 4.2)."""
        given, indices = self.given(batch), self.indices(batch['key'])
        x_t, t, _, s = self.states(networks, batch, key, indices)
        fake = self.estimate(networks, networks['student'], x_t, t, s, given, key)
        assert self.judge
        return self.judge.loss(networks, self.space.encode(networks, batch), fake, batch['key'], given)

    def states(
        self, networks: Networks, batch: Batch, key: Array, indices: tuple[Array, Array, Array]
    ) -> tuple[Array, Array, Array, Array]:
        """x_t (batch, …) and the times t > u ≥ s, (batch,) each, of these `indices`."""
        t, u, s = (self.schedule.step(index, self.config.family.discretisation) for index in indices)
        x, noise, _ = self.pairs(networks, batch, key)
        return self.schedule.perturb(x, noise, t), t, u, s

    def estimate(
        self, networks: Networks, network: Any, x: Array, t: Array, s: Array, given: Given, key: Array
    ) -> Array:
        """x_est: the image to which the target takes a network's jump from t to s (section 3.2)."""
        target = networks.averaged('target')['student']
        return self.move(target, self.move(network, x, t, s, given, key), s, jnp.zeros_like(s), given, key)

    def denoising(self, networks: Networks, batch: Batch, key: Array) -> Array:
        """The regression that the teacher was trained on, with its times and weights, of the student at s = t."""
        own = {**batch, 'key': rng.named(batch['key'], 'denoising')}
        (x, noise, _), t = self.pairs(networks, own, key), self.trainer.times(own['key'])
        key = rng.named(key, 'denoising')
        return self.trainer.regression(networks['student'], x, noise, self.given(batch), t, key).mean()

    def indices(self, keys: Array) -> tuple[Array, Array, Array]:
        """How many of the N steps remain at t, at u and at s, (batch,) each: t > u ≥ s.

        s is uniform before t. u lies up to `solver_steps` before t, but not before s.
        """
        options = self.config.family
        n = rng.integers(keys, 'time', 1, options.discretisation + 1)
        m = jnp.floor(rng.uniform(keys, 'target') * n).astype(int)
        taken = rng.integers(keys, 'solver', 1, min(options.solver_steps, options.discretisation) + 1)
        return n, jnp.maximum(n - taken, m), m

    def solved(self, teacher: predictions.Denoiser, x_t: Array, n: Array, k: Array) -> Array:
        """The states (batch, …) where n − k steps of the teacher's solver end; no gradient passes through them."""
        count = self.config.family.discretisation

        def step(number: Array, x: Array) -> Array:
            at = jnp.maximum(n - number, 1)
            t, s = self.schedule.step(at, count), self.schedule.step(at - 1, count)
            return jnp.where(expand(n - number > k, x), self.solver_step(teacher, x, t, s), x)

        most = min(self.config.family.solver_steps, count)
        return jax.lax.stop_gradient(jax.lax.fori_loop(0, most, step, x_t))

    def move(
        self, network: Any, x_t: Array, t: Array, s: Array, given: Given, key: Array | None = None
    ) -> Array:  # fmt: skip
        """G(x_t, t, s) = α_s x̂ + σ_s ε̂ with the network's prediction for this jump; x_t where s = t.

        On EDM's path this is the paper's (s / t) x_t + (1 − s / t) g(x_t, t, s) with g = x̂.
        """

        def towards(x: Array, time: Array, given: Given, **options: Any) -> Array:
            return network(x, time, given, s=self.schedule.condition(s), **options)

        denoise = predictions.denoiser(towards, self.prediction, self.schedule, given, key=key)
        image, noise, _ = denoise(x_t, self.before_the_end(t))
        return jnp.where(expand(s < t, x_t), self.schedule.perturb(image, noise, s), x_t)

    def flow_map(self, networks: Networks, given: Given, sampler: Sampler) -> FlowMap:
        return lambda x_t, t, s: self.move(networks['student'], x_t, t, s, given)
