"""Samplers as people write them: NAME, NAME:STEPS, NAME:STEPS:GUIDANCE or NAME:STEPS:KEY=VALUE,KEY=VALUE."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from genbench.errors import UserError
from genbench.families.base import Family, Sampler
from genbench.interpolants.schedules import check_spacing
from genbench.interpolants.solvers import Options

CHOICES = {field.name: field.metadata['choices'] for field in dataclasses.fields(Options)}
OPTIONS = ('guidance', *CHOICES)


class Written(NamedTuple):
    """The parts of a sampler's text; `steps` is None where it says none."""

    text: str
    name: str
    steps: int | None
    options: Mapping[str, str]


def listed(pieces: Iterable[str]) -> tuple[str, ...]:
    """The samplers of a list that was split at its commas: KEY=VALUE without a colon belongs to the one before it."""
    found: list[str] = []
    for piece in pieces:
        if found and '=' in piece and ':' not in piece:
            found[-1] += f',{piece}'
        else:
            found.append(piece)
    return tuple(found)


def read(text: str) -> Written:
    """The parts of a sampler's text, as yet unchecked; the steps may be left out before options, too.

    Raises:
      UserError: it has none of the forms.
    """
    name, *parts = text.split(':')
    steps = parts.pop(0) if parts and '=' not in parts[0] else None
    rest = parts.pop(0) if parts else ''
    pairs = [pair.strip().partition('=') for pair in rest.split(',')] if '=' in rest else []
    options = {key: value for key, _, value in pairs} if pairs or not rest else {'guidance': rest}
    ill = parts or '=' in name or not all(equals for _, equals, _ in pairs) or len(options) < len(pairs)
    try:
        count = None if steps is None else int(steps)
    except ValueError:
        ill = True
    if ill:
        raise UserError(
            f'The sampler {text!r} is not NAME, NAME:STEPS, NAME:STEPS:GUIDANCE or NAME:STEPS:KEY=VALUE,KEY=VALUE.'
        )
    return Written(text, name, count, options)


def check(written: Written, family: type[Family] | Family) -> None:
    """Find what can be told to be wrong before there is a model.

    Raises:
      UserError: the family cannot be sampled so, or the sampler does not take such an option.
    """
    family.check_sampler(written.name)
    if written.steps is not None and written.steps < 1:
        raise UserError(f'The sampler {written.text!r} needs at least one step.')
    taken = family.sampler_options(written.name)
    for key, value in written.options.items():
        if key == 'guidance':
            _number(written.text, value)
        elif key not in taken:
            known = ', '.join((('guidance',) if family.guidable else ()) + taken) or 'none'
            raise UserError(f'The sampler {written.text!r} has the option {key!r}; {written.name} takes {known}.')
        else:
            check_choice(key, value, f'The sampler {written.text!r}')


def check_choice(key: str, value: str, what: str) -> None:
    """Raise a UserError where `value` is none of this option's."""
    if value not in CHOICES[key]:
        raise UserError(f'{what} has {key}={value}; it can be {", ".join(CHOICES[key])}.')


def build(written: Written, family: Family) -> Sampler:
    """The sampler that is written, with the family's own number of steps where it says none.

    Raises:
      UserError: the family cannot be sampled so; the message says why.
    """
    check(written, family)
    options: dict[str, Any] = dict(written.options)
    guidance = _number(written.text, options.pop('guidance', '0'))
    if guidance and not (family.conditional and family.guidable):
        raise UserError(f'The sampler {written.text!r} asks for guidance, which needs family.conditional or '
                        'family.conditions, and a network that was trained with conditions left out.')  # fmt: skip
    chosen = Options(**options)
    if family.path is not None:
        check_spacing(family.path, chosen.spacing)
    return Sampler(written.name, family.default_steps if written.steps is None else written.steps, guidance, chosen)


def parse(text: str, family: Family) -> Sampler:
    """The sampler that a text names, if this family can be sampled so; otherwise a UserError says why not."""
    return build(read(text), family)


def default(family: Family) -> Sampler:
    """What a run is sampled with when nobody says: the family's first sampler and its default steps."""
    return Sampler(family.samplers[0], family.default_steps)


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f'The sampler {text!r} has the guidance {value!r}; it should be a number.')
    return number
