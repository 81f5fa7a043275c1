"""What each trial of a study may spend, and the step counts that spend it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from genbench import config as configs
from genbench import families
from genbench.config import Config
from genbench.errors import UserError
from genbench.families.base import Family
from genbench.studies.costs import Cost, Request, with_value

SPENT = ('steps', 'images', 'training_flops', 'seconds')  # quantities of a run; a budget sets at most one of them


@dataclasses.dataclass(frozen=True)
class Budget:
    """A budget of steps, images, training FLOPs or seconds; and of parameters, alone or in addition.

    Attributes:
      steps: number of updates.
      images: images seen in training, with repetitions.
      training_flops: operations of training, without those of borrowed runs, which are recorded separately.
      with_borrowed: whether the operations include those of the trials that a run builds on, such as a teacher. Each
        student then pays for the whole teacher, even if several share it.
      seconds: of training steps after compilation, from steps timed on this machine before the study starts.
      parameters: of the trained networks.
      width: the key to scale in order to reach `parameters`. If it is '' or the config has no such key, the number of
        parameters is only checked.
      multiple: widths are multiples of this.
      tolerance: the largest relative deviation from `parameters`.
    """

    steps: int | None = None
    images: int | None = None
    training_flops: float | None = None
    with_borrowed: bool = False
    seconds: float | None = None
    parameters: float | None = None
    width: str = 'network.channels'
    multiple: int = 8
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        named = [name for name in SPENT if getattr(self, name) is not None]
        if len(named) > 1:
            raise UserError(f'A budget has {" and ".join(named)}; use only one of them.')
        if self.with_borrowed and self.training_flops is None:
            raise UserError('A budget has with_borrowed, which is for training_flops; add training_flops or remove it.')
        if not named and self.parameters is None:
            raise UserError(f'A budget needs one of {", ".join((*SPENT, "parameters"))}.')
        for name in (*named, 'parameters', 'multiple', 'tolerance'):
            value = getattr(self, name)
            if value is None and name == 'parameters':
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UserError(f'The budget {name} is {value!r}; it should be a number above 0.')

    @property
    def by(self) -> str:
        """The quantity that determines step counts; '' if they stay as the configs say."""
        return next((name for name in SPENT if getattr(self, name) is not None), '')

    def needs_costs(self, config: Config) -> bool:
        """Whether steps or parameters depend on the costs of a run, or on the batch sizes of its stages."""
        staged = families.get(config.family.name).stages is not Family.stages
        by = ('training_flops', 'seconds', *(('images',) if staged else ()))
        return self.by in by or self.parameters is not None

    def values(self) -> dict[str, Any]:
        """The fields that were set, for study.json."""
        found = {name: getattr(self, name) for name in (*SPENT, 'parameters') if getattr(self, name) is not None}
        scaled = ('width', 'multiple', 'tolerance') if self.parameters is not None else ()
        borrowed = {'with_borrowed': True} if self.with_borrowed else {}
        return {**found, **borrowed, **{name: getattr(self, name) for name in scaled}}

    def request(self, config: Config, lent: Mapping[str, Config], cores: int) -> Request:
        """What to ask about a run in order to give it this budget. `cores` is how many a trial will have."""
        scaled = self.parameters is not None and self.width in dict(configs.flatten(config))
        return Request(
            config, lent, self.width if scaled else '', self.parameters or 0.0 if scaled else 0.0,
            self.multiple if scaled else 1, cores if self.by == 'seconds' else 0,
        )  # fmt: skip


def match(
    budget: Budget, name: str, config: Config, cost: Cost | None, borrowed: float = 0.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values of config keys that give a trial its budget, the quantities matched).

    Args:
      cost: the answer to `budget.request`. Only budgets for which `needs_costs` is true use it.
      borrowed: the operations of the trials that this one builds on, for a budget that includes them.

    Raises:
      UserError: one step costs more than the whole budget, the steps end within the warm-up, or the number of
        parameters is too far from the target.
    """
    values: dict[str, Any] = {}
    record: dict[str, Any] = {'by': budget.by or 'parameters', 'target': getattr(budget, budget.by or 'parameters')}
    if budget.parameters is not None and cost is not None:
        values, found = _width(budget, name, cost)
        record |= found
    borrowed = borrowed if budget.with_borrowed else 0.0
    if budget.by:
        steps = _steps(budget, config, cost, borrowed)
        _check_steps(budget, name, config, steps, borrowed)
        values['train.num_steps'] = steps
        record |= {'steps': steps, 'reached': _spent(budget, config, cost, steps) + borrowed}
    else:
        record |= {'steps': config.train.num_steps, 'reached': record['parameters']}
    if budget.by == 'seconds' and cost is not None:
        mean = cost.seconds(record['steps']) / record['steps']
        record |= {'step_seconds': mean, 'measured': 'on the machine that planned the study'}
    return values, record


def apply(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these values of keys."""
    for key, value in values.items():
        config = with_value(config, key, value)
    return config


def _steps(budget: Budget, config: Config, cost: Cost | None, borrowed: float) -> int:
    if budget.by == 'steps':
        return int(budget.steps or 0)
    if budget.by == 'images':
        images = int(budget.images or 0)
        return images // config.train.batch_size if cost is None else cost.steps_for(images, cost.images)
    assert cost is not None
    if budget.by == 'seconds':
        return cost.steps_for(budget.seconds or 0.0, cost.seconds)
    return cost.steps_for((budget.training_flops or 0.0) - borrowed)


def _spent(budget: Budget, config: Config, cost: Cost | None, steps: int) -> float:
    if budget.by == 'seconds' and cost is not None:
        return round(cost.seconds(steps), 3)
    if budget.by == 'training_flops' and cost is not None:
        return cost.flops(steps)
    if budget.by == 'images':
        return steps * config.train.batch_size if cost is None else cost.images(steps)
    return steps


def _check_steps(budget: Budget, name: str, config: Config, steps: int, borrowed: float) -> None:
    whole = f'the budget of {getattr(budget, budget.by):g} {budget.by}'
    if borrowed:
        whole += f', {borrowed:g} of which the trials that it builds on spend'
    if steps < 1:
        raise UserError(f'Trial {name!r}: one step costs more than {whole}; raise it, or exempt the trial '
                        'with matched=False.')  # fmt: skip
    if steps <= config.optimizer.warmup_steps:
        raise UserError(f'Trial {name!r}: {whole} buys {steps} steps, but optimizer.warmup_steps is '
                        f'{config.optimizer.warmup_steps}; raise the budget or shorten the warm-up.')  # fmt: skip


def _width(budget: Budget, name: str, cost: Cost) -> tuple[dict[str, Any], dict[str, Any]]:
    wanted = budget.parameters or 0.0
    off = cost.parameters / wanted - 1
    if abs(off) > budget.tolerance:
        scaled = (
            f'at the nearest {budget.width}={cost.width}' if cost.width else f'and no key {budget.width!r} to scale'
        )
        raise UserError(f'Trial {name!r} has {cost.parameters:,} parameters {scaled}, {off:+.1%} off the {wanted:,.0f} '
                        f'to match (tolerance {budget.tolerance:.1%}).')  # fmt: skip
    values = {budget.width: cost.width} if cost.width else {}
    return values, {'parameters': cost.parameters, 'parameters_target': wanted, **values}
