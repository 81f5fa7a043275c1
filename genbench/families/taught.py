"""The basis of families that distil a finished run: a student that starts as the denoiser of its teacher."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from genbench.data.conditions import WEIGHT
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Array, Batch, Borrowed, Family, Networks, Update
from genbench.families.paths import PathFamily
from genbench.families.regression import RegressionFamily
from genbench.families.spaces import Latents
from genbench.ranges import PATH


class TaughtFamily(PathFamily):
    """A 'student' with the data, schedule, prediction, network and first weights of the run 'teacher'.

    A family adds `loss(networks, batch, key, step)`.
    """

    main_network = 'student'
    only_to_train = ('teacher',)
    ranges = {'teacher': PATH}

    def __init__(self, config: Any, spec: DataSpec, borrowed: Mapping[str, Borrowed] | None = None):
        self.teacher = _checked((borrowed or {})['teacher'].family, spec)
        super().__init__(config, spec, borrowed)
        taught = self.teacher.conditions
        if strange := [name for name, one in self.forms.items() if name not in taught or taught[name].form != one]:
            raise UserError(f'The condition {strange[0]} needs a teacher that was trained with it, but this one was '
                            'not.')  # fmt: skip

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        options = {'conditional': False, 'conditions': (), 'teacher': ''}  # a finished diffusion or flow-matching run
        return {'family': options, 'network': {'name': 'none'}}

    @classmethod
    def borrows(cls, config: Any) -> dict[str, str]:
        return {'teacher': config.family.teacher}

    @property
    def path_config(self) -> Any:
        return self.teacher.path_config

    def networks(self, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
        return {'student': self.teacher.networks(rngs)[self.teacher.main_network]}

    def initialise(self, networks: Networks, batch: Batch, key: Array) -> None:
        """Copy the teacher's weights into the student."""
        taught = networks.borrowed('teacher')[self.teacher.main_network]
        copy(taught, networks['student'])

    @property
    def updates(self) -> tuple[Update, ...]:
        return (Update('student', ('student',), self.loss),)

    def loss(self, networks: Networks, batch: Batch, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        raise NotImplementedError


def copy(source: nnx.Module, into: nnx.Module) -> None:
    """Copy all variables of a network, also those that were drawn once and never trained, such as frequencies."""
    nnx.update(into, nnx.state(source))


def by_regression(teacher: PathFamily) -> RegressionFamily:
    """The teacher, whose own regression a family can also take of other networks or images.

    The regression is the teacher's loss except that a learned uncertainty does not divide it.
    """
    if not isinstance(teacher, RegressionFamily):
        raise UserError(f'The teacher is a {teacher.name} model, whose loss is no regression that a student could '
                        'share; use a diffusion or flow_matching run.')  # fmt: skip
    if teacher.config.family.offset_noise:
        raise UserError('The teacher was trained with family.offset_noise, which a student does not draw; use a '
                        'teacher without it.')  # fmt: skip
    return teacher


def _checked(teacher: Family, spec: DataSpec) -> PathFamily:
    """The teacher, once it is clear that a student on these data can follow its path."""
    if teacher.spec != spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, but this run trains on {spec}.')
    if not isinstance(teacher, PathFamily) or teacher.kind != 'denoiser':
        raise UserError(
            f'The teacher is a {teacher.config.family.name} model that has no path from noise to data that a student '
            'could follow; use a diffusion run, or a flow_matching run that was not distilled.'
        )
    if isinstance(teacher.space, Latents):
        raise UserError('The teacher models latents, but distillation needs a teacher that models pixels.')
    if not teacher.from_noise:
        raise UserError('The teacher starts from points (family.source), but a student starts from noise; use a '
                        'teacher that starts from noise.')  # fmt: skip
    if not teacher.stands_alone:
        raise UserError('The teacher cannot be sampled without the runs that it builds on, but a student copies one '
                        'network; use a run that needs no others.')  # fmt: skip
    if WEIGHT in teacher.forms:
        raise UserError(f'The teacher takes the condition {WEIGHT}, which this family does not give; use a teacher '
                        'without it.')  # fmt: skip
    return teacher
