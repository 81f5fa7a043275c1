"""Cells of an evaluation: each sampler with its parameters, from a config or from --grid words."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from genbench.errors import UserError, did_you_mean
from genbench.families.base import Family, Sampler
from genbench.ranges import SEED, STEPS, shown
from genbench.training import samplers
from genbench.training.samplers import GUIDANCE

_NUMBERS: dict[str, tuple[Any, Any]] = {
    'nfe': (int, STEPS),
    'steps': (int, STEPS),
    'seed': (int, SEED),
    'guidance': (float, GUIDANCE),
}
OWN = ('sampler', 'nfe', 'steps', 'guidance', 'average', 'seed')  # axes that are not options of a sampler


@dataclasses.dataclass(frozen=True)
class Cell:
    """One way to sample a checkpoint: its average of the parameters, a sampler, a seed."""

    average: str
    sampler: Sampler
    seed: int


def cells(words: Sequence[str], family: Family, options: Any) -> list[Cell]:
    """Return the product of 'key=value,value' words; without words, the config's samplers.

    A budget `nfe` gives each sampler the most steps that fit within it, and no more than the model was trained with.
    Results record the evaluations really spent.

    Raises:
      UserError: a malformed word, a sampler that does not fit, or a budget below one step.
    """
    axes = _axes(words, family)
    averages, seeds = axes.pop('average', [options.average]), axes.pop('seed', [str(options.seed)])
    if axes:
        products = itertools.product(*axes.values())
        chosen = [_sampler(dict(zip(axes, values, strict=True)), family) for values in products]
    elif options.samplers:
        chosen = [samplers.parse(text, family) for text in samplers.listed(options.samplers)]
    else:
        chosen = [samplers.default(family)]
    found = [
        Cell(average, sampler, _number('seed', seed))
        for average in averages for sampler in chosen for seed in seeds
    ]  # fmt: skip
    return list(dict.fromkeys(found))


def check(words: Sequence[str], family: type[Family]) -> None:
    """Report mistakes in the words that can be found without a model.

    Raises:
      UserError: a malformed word or number, or a sampler that does not fit the family.
    """
    axes = _axes(words, family)
    for text in axes.get('sampler', ()):
        samplers.check(samplers.read(text), family)
    known = samplers.fields(family)
    for key in known:
        for value in axes.get(key, ()):
            samplers.value_of(key, value, known, '--grid')
    for key in ('nfe', 'steps', 'seed', 'guidance'):
        for value in axes.get(key, ()):
            _number(key, value)


def _axes(words: Sequence[str], family: type[Family] | Family) -> dict[str, list[str]]:
    keys = (*OWN, *samplers.fields(family))
    axes = dict(_axis(word, keys) for word in words)
    if 'nfe' in axes and 'steps' in axes:
        raise UserError('--grid takes either nfe or steps, since one follows from the other.')
    return axes


def _axis(word: str, keys: Sequence[str]) -> tuple[str, list[str]]:
    key, equals, values = word.partition('=')
    if key not in keys:
        raise UserError(f'--grid has no axis {key!r}. {did_you_mean(key, keys)}')
    chosen = [value.strip() for value in values.split(',') if value.strip()]
    if not equals or not chosen:
        raise UserError(f'--grid {word!r} has no values; write {key}=VALUE,VALUE.')
    return key, list(samplers.listed(chosen)) if key == 'sampler' else chosen


def _sampler(choice: dict[str, str], family: Family) -> Sampler:
    written = samplers.read(choice.get('sampler', family.samplers[0]))
    axes = {key: value for key, value in choice.items() if key == 'guidance' or key not in OWN}
    twice = [key for key in axes if key in written.options]
    twice += [key for key in ('nfe', 'steps') if key in choice and written.steps is not None]
    if twice:
        raise UserError(f'--grid sets {twice[0]} twice: as an axis, and in the sampler {shown(written.text)}.')
    if 'guidance' in axes:
        _number('guidance', axes['guidance'])
    steps = _number('steps', choice['steps']) if 'steps' in choice else written.steps
    written = written._replace(steps=steps, options={**written.options, **axes})
    if 'nfe' not in choice:
        return samplers.build(written, family)
    sampler, budget = samplers.build(written._replace(steps=1), family), _number('nfe', choice['nfe'])
    if family.evaluations(sampler) > budget:
        raise UserError(
            f'--grid nfe={budget} is too few: a step of {sampler.name} takes {family.evaluations(sampler)} evaluations.'
        )

    def cost(steps: int) -> int:
        return family.evaluations(dataclasses.replace(sampler, num_steps=steps))

    most = min(budget, family.most_steps or budget)
    affordable = bisect.bisect_right(range(1, most + 1), budget, key=cost)
    steps = next(steps for steps in range(affordable, 0, -1) if not family.why_not(steps))
    return dataclasses.replace(sampler, num_steps=steps)


def _number(key: str, text: str) -> Any:
    kind, limits = _NUMBERS[key]
    try:
        value = kind(text)
    except ValueError:
        wanted = 'an integer' if kind is int else 'a number'
        raise UserError(f'--grid {key}={text[:60]} is not {wanted}.') from None
    limits.check(f'--grid {key}', value)
    return value
