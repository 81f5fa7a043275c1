"""Flow matching on the straight path.

Y. Lipman et al., Flow Matching for Generative Modeling, 2023; X. Liu et al., Flow Straight and Fast (rectified flow),
2023; P. Esser et al., Scaling Rectified Flow Transformers, 2024 (logit-normal times); S. Lee et al., Improving the
Training of Rectified Flows, 2024 (U-shaped times); A. Tong et al., Improving and Generalizing Flow-Based Generative
Models with Minibatch Optimal Transport, 2024 (paths between any two sets, with noise around them).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import WEIGHT, Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError, did_you_mean
from genbench.families.base import Array, Batch, Borrowed, Likelihood, Networks, Sampler, register
from genbench.families.pairs import PAIRS, Pairs, checked, told
from genbench.families.regression import RegressionFamily
from genbench.families.taught import copy
from genbench.interpolants import couplings
from genbench.ranges import NOT_NEGATIVE, PATH, POSITIVE


@register('flow_matching')
class FlowMatching(RegressionFamily):
    """A velocity field trained on ‖u(x_t, t) − (ε − x)‖² (Lipman et al. 2023, equation 23, with time reversed).

    With `coupling=pairs`, noise and image come from the ODE of the run `teacher`. The network starts from that run's
    weights if both have the same architecture. With the condition `guidance_weight` as well, a guidance weight is drawn
    for each pair, the ODE is guided with it, and the network takes it as a condition (C. Meng et al., On Distillation
    of Guided Diffusion Models, 2023).

    The teacher may have been trained on pairs itself: with k-rectified flow as the teacher this is (k + 1)-rectified
    flow. With `time_sampler=steps:count=k` as well, the network learns k steps of `euler` and no others, which for k =
    1 is the distillation of Liu et al. 2023, section 2.2.
    """

    couplings = {**couplings.COUPLINGS, 'pairs': PAIRS}
    only_to_train = ('teacher',)
    ranges = {'teacher': PATH, 'scale': POSITIVE, 'path_noise': NOT_NEGATIVE, 'data_noise': NOT_NEGATIVE}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'straight',
            'prediction': 'velocity',
            'teacher': '',  # run folder of a finished diffusion or flow-matching run, for coupling=pairs
            'scale': 1.0,  # the images fill [−scale, scale]; the noise has the deviation one
            'source': '',  # a set of points in the plane where paths start instead of noise; '': noise
            'path_noise': 0.0,  # σ of the normal around each straight path (Tong et al. 2024, section 3.2)
            'data_noise': 0.0,  # σ of the normal around an image where paths end (Lipman et al. 2023, equation 20)
        }
        return {**base, 'family': {**base['family'], **options}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        lent = {'teacher': config.family.teacher} if config.family.coupling.startswith('pairs') else {}
        return {**super().borrows(config), **lent}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.family.teacher and 'teacher' not in self.borrows(config):
            raise UserError('family.teacher has no effect without family.coupling=pairs.')
        tied = [f'family.{name}' for name in ('data_noise', 'path_noise', 'source') if config.family[name]]
        tied += ['family.coupling=pairs'] if 'teacher' in self.borrows(config) else []
        if config.family.classifier and tied:
            raise UserError(f'Guidance by a classifier takes the predicted noise to be −σ times the score, which is '
                            f'wrong with {tied[0]}; use that or family.classifier, not both.')  # fmt: skip
        if config.family.path_noise and self.schedule.name != 'straight':
            raise UserError('family.path_noise is for straight paths; use family.schedule=straight.')
        if config.family.offset_noise and (config.family.source or 'teacher' in self.borrows(config)):
            other = 'family.source' if config.family.source else 'family.coupling=pairs'
            raise UserError(f'family.offset_noise changes the noise where paths start, and {other} fixes it; use 0.')
        if config.family.source:
            self.draw, self.from_noise = _points(config.family.source, spec, config.family.scale), False
        self.made: Pairs | None = self._coupling() if 'teacher' in self.borrowed else None
        if self.made:
            self.teacher = checked(self, self.borrowed['teacher'].family, self.made)
            times: Any = self._time_sampler
            if config.family.time_sampler.startswith('steps'):
                self.kind, self.most_steps = 'fixed steps', times.keywords['count']

    @property
    def distils(self) -> bool:
        return 'teacher' in self.borrowed

    @property
    def likelihoods(self) -> tuple[Likelihood, ...]:
        """None if the density where paths start is not normal, or if the network knows steps of one length only."""
        return () if self.config.family.source or self.kind != 'denoiser' else super().likelihoods

    def why_not(self, steps: int, spacing: str = 'uniform', solver: str = '') -> str:
        if self.kind == 'denoiser' or self.most_steps is None:
            return super().why_not(steps, spacing)
        if solver not in ('', 'euler', 'ddim'):
            return 'this model learned steps of euler; use euler, or ddim, which is the same here'
        divides = self.schedule.curve is None and self.most_steps % steps == 0
        if spacing == 'uniform' and (divides or steps == self.most_steps):
            return ''
        return (f'this model learned {self.most_steps} steps of spacing=uniform (family.time_sampler); take that many, '
                'or a smaller number that divides it')  # fmt: skip

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        alike = self.made and self.config.network == self.teacher.config.network
        if alike and self.teacher.forms in (told(self.forms), self.forms):
            taught = networks.borrowed('teacher')[self.teacher.main_network]
            copy(taught, networks['denoiser'])

    def prepare(self, networks: Networks, rows: Batch) -> Mapping[str, Array]:
        """`copies` pairs per row, (batch, copies, …), straight from the teacher's ODE: not rounded to integers."""
        if not self.made:
            return super().prepare(networks, rows)
        teacher, made = self.teacher, self.made

        def one(copy: Array) -> dict[str, Any]:
            keys = rng.numbered(rng.named(rows['key'], 'pairs'), copy)
            noise, given = teacher.draw(keys, 'noise', self.spec.shape), teacher.given(rows, rng.named(keys, 'given'))
            start = teacher.schedule.sigma(jnp.asarray(teacher.schedule.t_max)) * noise
            weight = self._weights(rows, keys)
            guidance = weight.get(WEIGHT, made.guidance)
            if WEIGHT in teacher.forms:
                given, guidance = {**(given or {}), WEIGHT: jnp.broadcast_to(guidance, keys.shape)}, 0.0
            sampler = Sampler(made.solver, made.steps, guidance)
            image = teacher.carried(networks.borrowed('teacher'), start, keys, given, sampler).x
            pairs = {f'pair_{name}': {**(given or {}), **weight}[name] for name in self.conditions}
            return {'pair_noise': noise, 'pair_image': image, **pairs}

        pairs = jax.lax.map(one, jnp.arange(made.copies))
        return jax.tree.map(lambda values: values.swapaxes(0, 1), pairs)

    def _weights(self, rows: Batch, keys: Array) -> dict[str, Array]:
        """The condition `guidance_weight` of each pair, if the model has it."""
        drawn = self.conditions[WEIGHT].augment if WEIGHT in self.conditions else None
        return {WEIGHT: drawn(rows['image'], keys)[1]} if drawn else {}

    def pairs(self, networks: Networks, rows: Batch, key: Array) -> tuple[Array, Array, Given]:
        if not self.made:
            return self._smoothed(rows, *super().pairs(networks, rows, key))
        copy = rng.integers(rows['key'], 'copy', 0, self.made.copies)
        taken = {name: rows[f'pair_{name}'][jnp.arange(len(copy)), copy] for name in ('image', 'noise', *self.forms)}
        image, noise = taken.pop('image'), taken.pop('noise')
        return self._smoothed(rows, image, noise, conditions.drop(self.conditions, taken or None, self.silent(rows)))

    def _smoothed(self, rows: Batch, x: Array, noise: Array, given: Given) -> tuple[Array, Array, Given]:
        """Both ends of the paths, with the noise around the images and around the whole paths.

        (1 − t) (x + σ e) + t (ε + σ e) is a point of the path plus σ e, and the shift leaves the velocity as it is.
        """
        options = self.config.family
        if options.data_noise:
            x = x + options.data_noise * noise
        if options.path_noise:
            shift = options.path_noise * rng.normal(rows['key'], 'path_noise', self.space.shape)
            x, noise = x + shift, noise + shift
        return x, noise, given


def _points(name: str, spec: DataSpec, scale: float) -> Callable[..., Array]:
    """A function (keys, name, shape) → points (batch, 1, 2, 1) of a set: test points to sample from ('start'), and
    others to train on."""
    from genbench.data import plane  # imports TFDS

    if name not in plane.SETS:
        raise UserError(f'No set of points is called {name!r} (family.source). {did_you_mean(name, plane.SETS)}')
    if not spec.is_plane:
        raise UserError(f'family.source={name} holds points in the plane, and {spec.name} holds images.')
    split = {'start': 'test'}
    drawn = {one: (scale * plane.drawn(name, one)).astype(np.float32) for one in ('train', 'test')}

    def draw(keys: Array, purpose: str, shape: tuple[int, ...]) -> Array:
        points = drawn[split.get(purpose, 'train')]
        return jnp.asarray(points)[rng.integers(keys, purpose, 0, len(points))].reshape(-1, *shape)

    return draw
