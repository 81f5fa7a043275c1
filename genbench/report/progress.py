"""Quality against steps, training FLOPs and time, for runs that were scored while they trained."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from genbench.evaluation.protocol import Protocol
from genbench.report import figures
from genbench.report.cells import BY_NAME
from genbench.report.collect import StudyRecord, TrialRecord
from genbench.training.observing import PREFIX

BITS = ('bits_per_dim', 'bits/dim')
COSTS = {  # field of a point: (the key of a row of metrics.jsonl, title, format of the axis)
    'step': ('step', 'step', '~s'),
    'flops': ('train/flops', 'training FLOPs', '~s'),
    'seconds': ('wall_time', 'training time, seconds', '~g'),
}


def points(study: StudyRecord, models: Set[str] | None = None) -> list[dict[str, Any]]:
    """A point for every score of every trial, with its costs. Only the last protocol of a trial counts."""
    found = []
    for variant in study.variants:
        for trial in variant.trials if models is None or variant.name in models else ():
            for row in _rows(trial):
                costs = {field: row.get(key) for field, (key, _, _) in COSTS.items()}
                found += [
                    {'metric': name.removeprefix(PREFIX), 'value': value, 'variant': variant.name, 'trial': trial.name,
                     **costs}
                    for name, value in row.items() if name.startswith(PREFIX) and value is not None
                ]  # fmt: skip
    return found


def _rows(trial: TrialRecord) -> list[dict[str, Any]]:
    """The rows since the last change in how the trial was scored."""
    began = trial.monitor[-1]['step'] if trial.monitor else 0
    return [row for row in trial.metrics if row['step'] > began]


def alike(study: StudyRecord, metric: str) -> bool:
    """Whether all trials were scored under one protocol, up to the model and its sampler."""
    found = [trial.monitor[-1]['protocol'].get(metric) for trial in study.trials if trial.monitor]
    return len({Protocol(one).measurement.hash for one in found if one}) < 2


def drawn(
    study: StudyRecord, data: Sequence[Mapping[str, Any]], metric: str, cost: str, *, legend: bool = False
) -> figures.Spec | None:
    """One metric against one cost, with a line for every trial in the colour of its variant; None without points."""
    chosen = [point for point in data if point['metric'] == metric and point[cost] is not None]
    if len({point[cost] for point in chosen}) < 2:
        return None
    _, title, form = COSTS[cost]
    x = {'field': cost, 'type': 'quantitative', 'title': title, 'axis': {'format': form, 'tickCount': 5}}
    y = {'field': 'value', 'type': 'quantitative', 'title': f'{titled(metric)} (lower is better)',
         'scale': {'zero': False}, 'axis': {'format': '~g', 'tickCount': 5}}  # fmt: skip
    if metric != BITS[0] and min(point['value'] for point in chosen) > 0:
        y['scale'] = {'type': 'log', 'nice': False, 'padding': 8}
    told = (('trial', 'trial', ''), ('step', 'step', ''), ('flops', 'training FLOPs', '.3~s'),
            ('seconds', 'seconds', '.4~g'), ('value', titled(metric), '.4~g'))  # fmt: skip
    line = {'mark': {'type': 'line', 'strokeWidth': 1.75, 'opacity': 0.85}, 'encoding': {'detail': {'field': 'trial'}}}
    marks = figures.marked([variant.name for variant in study.variants], 'variant', legend)
    point = {'mark': {'type': 'point', 'filled': True, 'size': 45, 'opacity': 0.9},
             'encoding': {'shape': marks['shape'], 'tooltip': figures.tooltip(told)}}  # fmt: skip
    return figures.styled({
        'data': {'values': chosen}, 'encoding': {'x': x, 'y': y, 'color': marks['color']}, 'layer': [line, point],
    }, 220)  # fmt: skip


def titled(metric: str) -> str:
    return BITS[1] if metric == BITS[0] else BY_NAME[metric].title if metric in BY_NAME else metric


def metrics(data: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(point['metric'] for point in data))
