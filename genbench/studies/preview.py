"""What a study would run: its trials, how they differ, their steps and operations, and their current state."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from genbench.studies import costs
from genbench.studies.plan import Plan, Planned, without_bound
from genbench.training import forecast
from genbench.training.topologies import Target


def lines(plan: Plan, chosen: Sequence[Planned]) -> Iterator[str]:
    """A headline, what was matched, one line per trial, and the bounds that will be missing."""
    counts = {state: sum(one.state == state for one in plan.trials) for state in {one.state for one in plan.trials}}
    stand = ', '.join(f'{number} {state}' for state, number in sorted(counts.items()))
    yield f'{plan.study.title}: {len(plan.trials)} trials in {plan.folder} ({stand}); {len(chosen)} to run.'
    if plan.study.budget:
        values = ', '.join(f'{key} {_number(value)}' for key, value in plan.study.budget.values().items())
        yield f'matched: {values}'
    flops, apart = _flops(plan), _apart(plan)
    rows = [
        (
            '*' if one in chosen else ' ',
            one.name,
            one.state,
            f'{one.config.train.num_steps:,} steps',
            flops[one.name],
            _matched(one),
            apart[one.name],
        )
        for one in plan.trials
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield '  '.join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
    yield from without_bound(plan)


def elsewhere(plan: Plan, chosen: Sequence[Planned], target: Target) -> Iterator[str]:
    """One line per chosen trial: memory, minimum time and utilisation on devices that this machine lacks.

    Trials that differ only in their seed are compiled once.
    """
    configs = {one.name: one.config for one in plan.trials}
    requests = {
        one.name: (one.config, {name: configs[trial] for name, trial in one.lent.items()}) for one in chosen
    }  # fmt: skip
    keys = {name: costs.Request(config, lent).key for name, (config, lent) in requests.items()}
    apart = {key: requests[name] for name, key in keys.items()}
    reports = dict(zip(apart, forecast.ask_all(list(apart.values()), target), strict=True)) if apart else {}
    yield f'On {target.name} (estimates, not measurements):'
    width = max(map(len, keys), default=0)
    for name, key in keys.items():
        yield f'  {name.ljust(width)}  {forecast.line(reports[key])}'


def _apart(plan: Plan) -> dict[str, str]:
    """What the study sets differently for each trial: the config, if there are several, and the overridden keys."""
    overridden = {text.partition('=')[0] for one in plan.trials for text in one.trial.overrides}
    several = len({one.trial.config for one in plan.trials}) > 1
    settings, found = plan.settings(), {}
    for one in plan.trials:
        words = ['/'.join(pathlib.Path(one.trial.config).with_suffix('').parts[-2:])] if several else []
        words += [f'{key}={_shown(value)}' for key, value in settings[one.name].items() if key in overridden]
        found[one.name] = ', '.join(words)
    return found


def _flops(plan: Plan) -> dict[str, str]:
    """Estimated training operations of each trial, in words."""
    configs = {one.name: one.config for one in plan.trials}
    unknown = [one for one in plan.trials if 'training_flops' not in one.matched]
    lent = [{name: configs[trial] for name, trial in one.lent.items()} for one in unknown]
    found = costs.estimate([costs.Request(one.config, runs) for one, runs in zip(unknown, lent, strict=True)])
    said = {one.name: f'{_number(one.matched["training_flops"])} FLOPs' for one in plan.trials if one not in unknown}
    for one, cost in zip(unknown, found, strict=True):
        if isinstance(cost, str):
            said[one.name] = f'FLOPs unknown: {cost}'
        else:
            said[one.name] = f'{_number(cost.flops(one.config.train.num_steps))} FLOPs'
    return said


def _matched(one: Planned) -> str:
    matched = one.matched
    if not matched:
        return ''
    if 'target' not in matched:
        return 'not matched'
    spent = f'{matched["by"]} {_number(matched["reached"])} of {_number(matched["target"])}'
    for name, flops in matched.get('builds_on', {}).items():
        spent += f', after {name}' + (f' {_number(flops)} FLOPs' if flops else '')
    return spent


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else f'{value:,}' if isinstance(value, int) else str(value)


def _shown(value: Any) -> str:
    return ','.join(map(str, value)) if isinstance(value, list | tuple) else str(value)
