"""Flow matching on the straight path.

Y. Lipman et al., Flow Matching for Generative Modeling, 2023; X. Liu et al., Flow Straight and Fast (rectified flow),
2023; P. Esser et al., Scaling Rectified Flow Transformers, 2024 (logit-normal times); S. Lee et al., Improving the
Training of Rectified Flows, 2024 (U-shaped times).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from genbench import rng
from genbench.data import conditions
from genbench.data.conditions import WEIGHT, Given
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Networks, Sampler, register
from genbench.families.paths import PathFamily
from genbench.families.regression import RegressionFamily
from genbench.interpolants import couplings
from genbench.interpolants.choices import Choice
from genbench.ranges import ANY, COUNT, PATH, Range


class Pairs(NamedTuple):
    """Pairs of noise and the image that a finished run's ODE turns it into (Liu et al. 2023, section 2.1: reflow).

    Attributes:
      copies: the number of pairs per row of the train split. Each training step uses one of them.
    """

    solver: str
    steps: int
    guidance: float
    copies: int


_PAIRS = Choice(Pairs, {
    'solver': ('heun', Range()), 'steps': (25, COUNT), 'guidance': (0.0, ANY), 'copies': (4, COUNT),
})  # fmt: skip


@register('flow_matching')
class FlowMatching(RegressionFamily):
    """A velocity field trained on ‖u(x_t, t) − (ε − x)‖² (Lipman et al. 2023, equation 23, with time reversed).

    With `coupling=pairs`, noise and image come from the ODE of the run `teacher`. The network starts from that run's
    weights if both have the same architecture. With the condition `guidance_weight` as well, a guidance weight is drawn
    for each pair, the ODE is guided with it, and the network takes it as a condition (C. Meng et al., On Distillation
    of Guided Diffusion Models, 2023).
    """

    couplings = {**couplings.COUPLINGS, 'pairs': _PAIRS}
    only_to_train = ('teacher',)
    ranges = {'teacher': PATH}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        options = {
            'schedule': 'straight',
            'prediction': 'velocity',
            'teacher': '',  # run folder of a finished diffusion or flow-matching run, for coupling=pairs
        }
        return {**base, 'family': {**base['family'], **options}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        lent = {'teacher': config.family.teacher} if config.family.coupling.startswith('pairs') else {}
        return {**super().borrows(config), **lent}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        super().__init__(config, spec, borrowed)
        if config.family.teacher and 'teacher' not in self.borrows(config):
            raise UserError('family.teacher has no use without family.coupling=pairs.')
        self.made: Pairs | None = self._coupling() if 'teacher' in self.borrowed else None
        if self.made:
            self.teacher = _checked(self, self.borrowed['teacher'].family, self.made)

    @property
    def distils(self) -> bool:
        return 'teacher' in self.borrowed

    @property
    def told(self) -> dict[str, conditions.Form]:
        """The conditions that a teacher must know: all except the guidance weight."""
        return {name: form for name, form in self.forms.items() if name != WEIGHT}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        super().initialise(networks, batch, key)
        if self.made and self.config.network == self.teacher.config.network and self.told == self.teacher.forms:
            taught = networks.borrowed('teacher')[self.teacher.main_network]
            nnx.update(networks['denoiser'], nnx.state(taught, nnx.Param))

    def prepare(self, networks: Networks, rows: Batch) -> Mapping[str, Array]:
        """`copies` pairs per row, (batch, copies, …), straight from the teacher's ODE: not rounded to integers."""
        if not self.made:
            return super().prepare(networks, rows)
        teacher, made = self.teacher, self.made

        def one(copy: Array) -> dict[str, Any]:
            keys = rng.numbered(rng.named(rows['key'], 'pairs'), copy)
            noise, given = rng.normal(keys, 'noise', self.spec.shape), teacher.given(rows, rng.named(keys, 'given'))
            start = teacher.schedule.sigma(jnp.asarray(teacher.schedule.t_max)) * noise
            weight = self._weights(rows, keys)
            sampler = Sampler(made.solver, made.steps, weight.get(WEIGHT, made.guidance))
            image = teacher.carried(networks.borrowed('teacher'), start, keys, given, sampler).x
            told = {f'pair_{name}': {**(given or {}), **weight}[name] for name in self.conditions}
            return {'pair_noise': noise, 'pair_image': image, **told}

        pairs = jax.lax.map(one, jnp.arange(made.copies))
        return jax.tree.map(lambda values: values.swapaxes(0, 1), pairs)

    def _weights(self, rows: Batch, keys: Array) -> dict[str, Array]:
        """The condition `guidance_weight` of each pair, if the model has it."""
        drawn = self.conditions[WEIGHT].augment if WEIGHT in self.conditions else None
        return {WEIGHT: drawn(rows['image'], keys)[1]} if drawn else {}

    def pairs(self, networks: Networks, rows: Batch, key: Array) -> tuple[Array, Array, Given]:
        if not self.made:
            return super().pairs(networks, rows, key)
        copy = rng.integers(rows['key'], 'copy', 0, self.made.copies)
        taken = {name: rows[f'pair_{name}'][jnp.arange(len(copy)), copy] for name in ('image', 'noise', *self.forms)}
        image, noise = taken.pop('image'), taken.pop('noise')
        return image, noise, conditions.drop(self.conditions, taken or None, self.silent(rows))


def _checked(student: FlowMatching, teacher: Any, made: Pairs) -> PathFamily:
    """The run that makes the pairs, checked for whether it can."""
    name = teacher.config.family.name
    if not isinstance(teacher, PathFamily) or teacher.kind != 'denoiser':
        raise UserError(f'The teacher is a {name} model, which has no ODE from noise to images; use a diffusion or '
                        'flow_matching run.')  # fmt: skip
    if teacher.borrowed or len(student.borrowed) > 1:
        raise UserError('Pairs need pixels and a teacher that stands alone: neither it nor this run may build on '
                        'other runs.')  # fmt: skip
    if teacher.spec != student.spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, and this run trains on {student.spec}.')
    teacher.check_sampler(made.solver)
    if WEIGHT in student.forms and (WEIGHT in teacher.forms or not teacher.conditional or made.guidance):
        raise UserError(f'The condition {WEIGHT} needs a teacher that was trained with other conditions, and no '
                        'guidance in family.coupling.')  # fmt: skip
    if strange := [one for one, form in student.told.items() if teacher.forms.get(one) != form]:
        raise UserError(f'The condition {strange[0]} needs a teacher that was trained with it, but this one was not.')
    if made.guidance and not teacher.conditional:
        raise UserError(f'family.coupling has guidance={made.guidance:g}, which needs a teacher with conditions.')
    return teacher
