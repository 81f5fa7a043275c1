"""Samplers as users write them: NAME, NAME:STEPS, NAME:STEPS:GUIDANCE or NAME:STEPS:KEY=VALUE,KEY=VALUE."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from genbench.data import conditions
from genbench.errors import UserError
from genbench.families.base import Family, Sampler
from genbench.interpolants.options import ORIGINAL
from genbench.interpolants.spacings import check_spacing
from genbench.ranges import STEPS, Range, shown

GUIDANCE = Range(-1000, 1000)
Fields = Mapping[str, 'dataclasses.Field[Any]']


class Written(NamedTuple):
    """The parts of a sampler's text; `steps` is None if the text gives none."""

    text: str
    name: str
    steps: int | None
    options: Mapping[str, str]


def listed(pieces: Iterable[str]) -> tuple[str, ...]:
    """The samplers of a list that was split at commas. KEY=VALUE without a colon belongs to the preceding sampler."""
    found: list[str] = []
    for piece in pieces:
        if found and '=' in piece and ':' not in piece:
            found[-1] += f',{piece}'
        else:
            found.append(piece)
    return tuple(found)


def read(text: str) -> Written:
    """Split a sampler's text into its parts, without checking them. The steps may also be omitted before options.

    Raises:
      UserError: the text has none of the known forms.
    """
    name, *parts = text.split(':')
    steps = parts.pop(0) if parts and '=' not in parts[0] else None
    rest = parts.pop(0) if parts else ''
    pairs = [pair.strip().partition('=') for pair in _pieces(rest)] if '=' in rest else []
    options = {key: value for key, _, value in pairs} if pairs or not rest else {'guidance': rest}
    ill = parts or '=' in name or not all(equals for _, equals, _ in pairs) or len(options) < len(pairs)
    try:
        count = None if steps is None else int(steps)
    except ValueError:
        ill = True
    if ill:
        raise UserError(
            f'The sampler {shown(text)} should be NAME, NAME:STEPS, NAME:STEPS:GUIDANCE or NAME:STEPS:KEY=VALUE,….'
        )
    return Written(text, name, count, options)


def _pieces(rest: str) -> list[str]:
    """The options, split at commas. A piece without = continues a negative caption."""
    found: list[str] = []
    for piece in rest.split(','):
        if found and '=' not in piece and found[-1].lstrip().startswith('negative='):
            found[-1] += f',{piece}'
        else:
            found.append(piece)
    return found


def check(written: Written, family: type[Family] | Family) -> None:
    """Find the mistakes that can be found before there is a model.

    Raises:
      UserError: the family has no such sampler, or the sampler has no such option.
    """
    family.check_sampler(written.name)
    if written.steps is not None:
        STEPS.check(f'The number of steps of the sampler {shown(written.text)}', written.steps)
    taken = fields(family, written.name)
    for key, value in written.options.items():
        if key == 'guidance':
            _number(written.text, value)
        elif key not in taken:
            known = ', '.join((('guidance',) if family.guidable else ()) + tuple(taken)) or 'none'
            raise UserError(f'The sampler {shown(written.text)} has the option {key!r}; {written.name} takes {known}.')
        else:
            value_of(key, value, taken, f'The sampler {shown(written.text)}')


def fields(family: type[Family] | Family, *names: str) -> Fields:
    """The options of these samplers of a family, by name. Without names, the options of all its samplers."""
    records = [family.sampler_options(name) for name in names or family.samplers]
    found = {field.name: field for record in records for field in dataclasses.fields(record)}
    return {name: field for name, field in found.items()
            if family.guidable or field.metadata['acts_with'] != 'guidance'}  # fmt: skip


def value_of(key: str, text: str, taken: Fields, what: str) -> Any:
    """An option's value. Raise a UserError if the text does not spell one."""
    try:
        return taken[key].metadata['read'](text)
    except ValueError as error:
        raise UserError(f'{what} has {key}={text[:60]}; it can be {error}.') from None


def build(written: Written, family: Family) -> Sampler:
    """The sampler that the text describes, with the family's default number of steps if it gives none.

    Options at their default, and options that act only with another one that is zero, are dropped. Samplers that draw
    the same samples therefore compare equal.

    Raises:
      UserError: the family cannot be sampled in this way. The message says why.
    """
    check(written, family)
    texts, taken = dict(written.options), fields(family, written.name)
    guidance = _number(written.text, texts.pop('guidance', '0'))
    guided = guidance or ('guidance' in written.options and texts.get('renoise') == 'plain')
    distilled = conditions.WEIGHT in family.conditions
    if guided and not distilled and not (family.guidable and (family.conditional or 'guide' in texts)):
        other = ', or a guide: guide=RUN' if family.guidable else ''
        raise UserError(f'The sampler {shown(written.text)} has guidance, which needs family.conditional or '
                        f'family.conditions, and family.condition_dropout in training{other}.'
                        )  # fmt: skip
    if guided and not distilled and not {'guide', 'negative'} & {*texts} and texts.get('by') != 'classifier':
        _check_dropout(written, family)
    if 'guide' in texts and 'negative' in texts:
        raise UserError(f'The sampler {shown(written.text)} has both guide and negative; use only one.')
    if texts.get('by') == 'classifier':
        _check_classifier(written, family)
    if 'control' in texts and not family.controlled:
        raise UserError(f'The sampler {shown(written.text)} has control, which needs a run with family.base.')
    if distilled and guidance and 'guide' not in texts:
        conditions.check_weight(
            family.forms[conditions.WEIGHT], guidance, f'The guidance of the sampler {shown(written.text)}'
        )
    if distilled and {'interval', 'negative', 'renoise', 'by'} & {*texts}:
        raise UserError(
            f'The sampler {shown(written.text)} has interval, negative, renoise or by; this model takes '
            'guidance only as a condition.'
        )
    values = {key: value_of(key, text, taken, f'The sampler {shown(written.text)}') for key, text in texts.items()}
    acting = {**values, 'guidance': guided}
    for key in texts:
        needed = taken[key].metadata['acts_with']
        if needed and needed not in written.options:
            raise UserError(f'The sampler {shown(written.text)} has {key}, which has no effect without {needed}; '
                            f'add {needed}=….')  # fmt: skip
        if needed and not acting[needed]:
            del values[key]
    if values.get('negative'):
        conditions.stated(family.conditions, values['negative'], 1)
    steps, options = written.steps, family.sampler_options(written.name)(**values)
    if family.path is not None and 'spacing' in values:
        fixed = check_spacing(family.path, values['spacing'])
        if fixed is not None and steps not in (None, fixed):
            raise UserError(
                f'The sampler {shown(written.text)} lists the times of {fixed} steps; remove the number of steps.'
            )
        steps = fixed or steps
    if family.path is not None:
        options.check(family.path)
    if not family.from_noise:
        _check_deterministic(written, options)
    chosen = {'options': options} if options.changed else {}
    steps = default(family).num_steps if steps is None else steps
    if why_not := family.why_not(steps, values.get('spacing', 'uniform'), written.name):
        raise UserError(f'The sampler {shown(written.text)} takes {steps} steps, and {why_not}.')
    return Sampler(written.name, steps, guidance, **chosen)


def _check_dropout(written: Written, family: Family) -> None:
    if not family.config.family.get('condition_dropout'):
        raise UserError(f'The sampler {shown(written.text)} has guidance, which compares predictions with and without '
                        'conditions, but this model was trained with family.condition_dropout=0; train it with 0.1, '
                        'or give guide=RUN or negative=….')  # fmt: skip


def _check_classifier(written: Written, family: Family) -> None:
    """Raise a UserError for guidance by a classifier that the family does not have, or by something else as well."""
    if not family.classifies:
        raise UserError(f'The sampler {shown(written.text)} has by=classifier, which needs a model trained with '
                        'family.classifier=True.')  # fmt: skip
    if other := {'guide', 'negative'} & {*written.options}:
        raise UserError(f'The sampler {shown(written.text)} has both by=classifier and {min(other)}; use only one.')


def _check_deterministic(written: Written, options: Any) -> None:
    """Raise a UserError for a sampler that is not right where paths start at points other than noise."""
    named = {'temperature', *ORIGINAL} & {*options.changed}
    if options.draws or named:
        what = f'has {min(named)}, which is' if named else 'draws noise, which is right only'
        raise UserError(f'The sampler {shown(written.text)} {what} for paths that start from noise, and these start at '
                        'family.source; use an ODE solver, for example heun.')  # fmt: skip


def parse(text: str, family: Family) -> Sampler:
    """The sampler that a text describes. Raise a UserError with the reason if this family cannot be sampled so."""
    return build(read(text), family)


def default(family: Family) -> Sampler:
    """The sampler used by default: the family's first one, with its default number of steps."""
    return Sampler(family.samplers[0], min(family.default_steps, family.most_steps or family.default_steps))


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number) or not GUIDANCE.low <= number <= GUIDANCE.high:
        raise UserError(
            f'The sampler {shown(text)} has the guidance {shown(value)}; it should be a number, {GUIDANCE.words}.'
        )
    return number
