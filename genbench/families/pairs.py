"""Pairs of noise and the image that a finished run's ODE makes of it: X. Liu et al., Flow Straight and Fast, 2023."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from genbench.data import conditions
from genbench.data.conditions import WEIGHT, Form
from genbench.errors import UserError
from genbench.families.paths import PathFamily
from genbench.interpolants import solvers
from genbench.interpolants.choices import Choice
from genbench.ranges import ANY, COUNT, Range


class Pairs(NamedTuple):
    """How pairs are made (section 2.1: reflow).

    Attributes:
      copies: the number of pairs per row of the train split. Each training step uses one of them.
    """

    solver: str
    steps: int
    guidance: float
    copies: int


PAIRS = Choice(Pairs, {
    'solver': ('heun', Range()), 'steps': (25, COUNT), 'guidance': (0.0, ANY), 'copies': (4, COUNT),
})  # fmt: skip


def told(forms: Mapping[str, Form]) -> dict[str, Form]:
    """The conditions that a teacher must know: all except the guidance weight."""
    return {name: form for name, form in forms.items() if name != WEIGHT}


def checked(student: PathFamily, teacher: Any, made: Pairs) -> PathFamily:
    """The run that makes the pairs, checked for whether it can."""
    name = teacher.config.family.name
    if not isinstance(teacher, PathFamily) or teacher.kind != 'denoiser':
        raise UserError(f'The teacher is a {name} model that has no ODE from noise to images; use a diffusion run, or '
                        'a flow_matching run that was not distilled.')  # fmt: skip
    if not teacher.stands_alone or len(student.borrowed) > 1:
        raise UserError('Pairs need pixels and a teacher that samples without other runs; besides the teacher, this '
                        'run may not build on others.')  # fmt: skip
    if teacher.spec != student.spec:
        raise UserError(f'The teacher was trained on {teacher.spec}, but this run trains on {student.spec}.')
    for key, own in (('scale', 1.0), ('source', '')):
        if (other := teacher.path_config.get(key, own)) != student.config.family[key]:
            raise UserError(f'The teacher has family.{key}={other!r}, and this run {student.config.family[key]!r}.')
    solver = teacher.solver(made.solver)
    if solvers.draws(solver):
        raise UserError(f'family.coupling has solver={made.solver}, which draws noise; pairs are the two ends of an '
                        'ODE, so use heun.')  # fmt: skip
    solver.options().check(teacher.schedule)
    if teacher.most_steps is not None and made.steps > teacher.most_steps:
        raise UserError(f'family.coupling has steps={made.steps}, and the teacher was trained at the times of '
                        f'{teacher.most_steps}; take at most {teacher.most_steps}.')  # fmt: skip
    if strange := [one for one, form in told(student.forms).items() if teacher.forms.get(one) != form]:
        raise UserError(f'The condition {strange[0]} needs a teacher that was trained with it, but this one was not.')
    _check_guidance(student.forms, teacher, made)
    return teacher


def _check_guidance(forms: Mapping[str, Form], teacher: PathFamily, made: Pairs) -> None:
    """Raise a UserError if the teacher cannot be guided as the pairs ask, for a student with conditions `forms`."""
    if WEIGHT in forms and ({*teacher.forms} <= {WEIGHT} or made.guidance):
        raise UserError(f'The condition {WEIGHT} needs a teacher that was trained with other conditions, and no '
                        'guidance in family.coupling.')  # fmt: skip
    if made.guidance and not teacher.conditional:
        raise UserError(f'family.coupling has guidance={made.guidance:g}, which needs a teacher with conditions.')
    if WEIGHT in teacher.forms:
        for weight in forms[WEIGHT].limits if WEIGHT in forms else (made.guidance,):
            conditions.check_weight(teacher.forms[WEIGHT], weight, "The guidance of the teacher's pairs")
    elif (made.guidance or WEIGHT in forms) and not teacher.path_config.condition_dropout:
        raise UserError('Guided pairs need a teacher that was trained with family.condition_dropout above 0; this one '
                        'was trained with 0.')  # fmt: skip
