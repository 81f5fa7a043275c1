"""Figures for the page and for papers, in Vega-Lite. Variants keep one colour and one shape throughout."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from genbench.evaluation.results import BOUNDS, HELD_OUT
from genbench.report import cells, leaderboard
from genbench.report.cells import LIKELIHOOD, METRICS, Cell
from genbench.report.collect import StudyRecord, Variant
from genbench.report.marks import COLOURS, DASHES, colour, shape

Spec = dict[str, Any]

INK = 'var(--quiet)'  # from the style sheet of the page; `papers` has its own
CURVE_POINTS = 120
KINDS = ('exact', 'lower bound', 'estimate')
QUALITY = tuple(metric for metric in METRICS if metric.of_sampler and metric.lower_is_better is not None)
TOLD = [('label', 'model', ''), ('said', 'value', ''), ('interval', '95% interval', ''), ('seeds', 'seeds', ''),
        ('warning', 'warning', '')]  # fmt: skip
COSTS = {  # key of a point: (name in a study, title, whether the value differs between samplers)
    'nfe': ('nfe', 'network evaluations per image', True),
    'milliseconds': ('seconds', 'milliseconds per sampled image', True),
    'flops': ('flops', 'training FLOPs', False),
    'seconds': ('seconds', 'training time, seconds', False),
}


def styled(spec: Spec, height: int) -> Spec:
    """Return the specification, as wide as its container on the page."""
    quiet = {
        'labelColor': INK,
        'titleColor': INK,
        'labelFontSize': 12,
        'titleFontSize': 12,
        'titleFontWeight': 'normal',
    }
    axis = {**quiet, 'gridColor': INK, 'gridOpacity': 0.16, 'domainColor': INK, 'tickColor': INK, 'titlePadding': 8,
            'labelOverlap': 'greedy'}  # fmt: skip
    config = {
        'view': {'stroke': None},
        'axis': axis,
        'legend': {**quiet, 'symbolSize': 90},
        'font': 'system-ui, sans-serif',
    }
    return {
        '$schema': 'https://vega.github.io/schema/vega-lite/v6.json', 'width': 'container', 'height': height,
        'background': 'transparent', 'config': config, **spec,
    }  # fmt: skip


def series(study: StudyRecord) -> list[str]:
    """The things whose quality is compared: variants, or the samplers if the study has a single variant."""
    if len(study.variants) != 1:
        return [variant.name for variant in study.variants]
    found = [cell for metric in QUALITY for cell in cells.of(study, metric.name) if cell.variant not in BOUNDS]
    return list(dict.fromkeys(_sampling(cell) for cell in found))


def marked(names: Sequence[str], field: str, legend: bool = False) -> Spec:
    """The colour and shape of a field, by the place of its value in `names`."""
    key = {'orient': 'right', 'title': None, 'symbolOpacity': 1} if legend else None

    def encoding(values: list[str]) -> Spec:
        return {'field': field, 'type': 'nominal', 'title': None, 'legend': key,
                'scale': {'domain': list(names), 'range': values}}  # fmt: skip

    return {
        'color': encoding([colour(index) for index in range(len(names))]),
        'shape': encoding([shape(index) for index in range(len(names))]),
    }


def tooltip(told: Sequence[tuple[str, str, str]]) -> list[Spec]:
    """Convert (field, label, format or '') to the lines of a tooltip."""
    return [{'field': field, 'title': name, **({'format': form} if form else {})} for field, name, form in told]


def quality_points(study: StudyRecord) -> list[dict[str, Any]]:
    """Return a point for every sample metric, variant and sampler, with its costs."""
    shown = {entry.variant: entry for entry in leaderboard.entries(study)}
    alone = len(study.variants) == 1
    costs = {
        name: cells.of(study, name) for name in ('training_flops', 'training_seconds', 'sampling_images_per_second')
    }
    scores = {name: cells.of(study, name) for name in ('precision', 'recall')}

    def degenerate(cell: Cell) -> bool:
        own = [next((c for c in found if c.variant == cell.variant and c.way.fits(cell.way)), None)
               for found in scores.values()]  # fmt: skip
        return cells.degenerate(*own)

    points = []
    for metric in QUALITY:
        for cell in cells.of(study, metric.name):
            if cell.variant in BOUNDS:
                continue
            speed = _cost(cell, costs['sampling_images_per_second'])
            chosen = shown[cell.variant].cells.get(metric.name)
            points.append({
                'metric': metric.name, 'series': _sampling(cell) if alone else cell.variant, 'variant': cell.variant,
                'line': f'{cell.variant} · {_sampling(cell)}', 'nfe': cell.way.nfe,
                'value': cell.value, **_whiskers(cell), 'seeds': cell.seeds, **_told(cell, degenerate(cell)),
                'milliseconds': 1000 / speed if speed else None, 'flops': _cost(cell, costs['training_flops']),
                'seconds': _cost(cell, costs['training_seconds']),
                'top': chosen is not None and cell.way.fits(chosen.way),
            })  # fmt: skip
    return _dashed(points)


def _dashed(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the number of its line's dash to each point: the samplers of a series in order."""
    lines: dict[str, list[str]] = {}
    for point in points:
        own = lines.setdefault(point['series'], [])
        if point['line'] not in own:
            own.append(point['line'])
        point['dash'] = own.index(point['line']) % len(DASHES)
    return points


def _sampling(cell: Cell) -> str:
    """The sampler without its number of steps."""
    way = cell.way
    guided = f' · guidance {way.guidance:g}' if way.guidance else ''
    guided += f' · {way.options}' if way.options else ''
    return f'{way.sampler}{guided}' + (f' · {way.average}' if way.average not in (None, 'ema') else '')


def _whiskers(cell: Cell) -> dict[str, float]:
    """The 95% interval, or the value alone. If the value is above zero, so is the interval, for logarithmic axes."""
    low, high = cell.interval or (cell.value, cell.value)
    return {'low': max(low, cell.value / 10) if cell.value > 0 else low, 'high': high}


def _told(cell: Cell, degenerate: bool) -> dict[str, str]:
    """What a tooltip says about a point in addition to its cost."""
    shown, sd, interval = cell.metric.form.format, cell.estimate.sd, cell.interval
    spread = f' ± {shown(sd)}' if sd and shown(sd) != shown(0) else ''
    return {
        'said': f'{shown(cell.value)}{spread}',
        'interval': f'{shown(interval[0])} to {shown(interval[1])}' if interval else 'unknown',
        'warning': 'precision without recall' if degenerate else '',
        'label': f'{cell.variant} · {cell.way.label}',
    }


def _cost(cell: Cell, found: Sequence[Cell]) -> float | None:
    fitting = [one for one in found if one.variant == cell.variant and (not one.way.sampler or one.way.fits(cell.way))]
    return fitting[0].value if fitting else None


def floors(study: StudyRecord) -> dict[str, float]:
    """Each sample metric on held-out real images, if there are as many of them as samples."""
    beside = [cell for metric in QUALITY for cell in cells.of(study, metric.name) if cell.variant not in BOUNDS]
    real = [entry for entry in leaderboard.bounds(study, beside) if entry.variant == HELD_OUT]
    return {name: cell.value for entry in real for name, cell in entry.cells.items()}


def quality(study: StudyRecord, x: str, *, legend: bool = False) -> Spec:
    """Quality against a cost, without data. The page and `papers` fill in `points` and `floor` for one metric."""
    _, title, every = COSTS[x]
    marks = marked(series(study), 'series', legend)
    encoding = {
        'x': {'field': x, 'type': 'quantitative', 'title': title, 'axis': {'format': '~s' if x == 'flops' else ',~g'},
              'scale': {'type': 'log', 'nice': False, 'padding': 18}},
        'y': {'field': 'value', 'type': 'quantitative', 'title': '', 'axis': {'format': '~g'},
              'scale': {'type': 'log', 'nice': False, 'padding': 12}},
        'color': marks['color'],
    }  # fmt: skip
    told = [*TOLD, (x, title, '.4~g')] if x != 'nfe' else TOLD
    lines: list[Spec] = [{
        'mark': {'type': 'line', 'strokeWidth': 1.75, 'opacity': 0.75},
        'encoding': {'detail': {'field': 'line'}, 'order': {'field': 'nfe'},
                     'strokeDash': {'field': 'dash', 'type': 'nominal', 'legend': None,
                                    'scale': {'domain': list(range(len(DASHES))), 'range': [list(d) for d in DASHES]}}},
    }] if every else []  # fmt: skip
    bars = {'mark': {'type': 'rule', 'strokeWidth': 1.5, 'opacity': 0.75},
            'encoding': {'y': {**encoding['y'], 'field': 'low'}, 'y2': {'field': 'high'}}}  # fmt: skip
    points = {'mark': {'type': 'point', 'filled': True, 'size': 95, 'opacity': 0.9},
              'encoding': {'tooltip': tooltip(told), 'shape': marks['shape']}}  # fmt: skip
    front = {
        'data': {'name': 'front'},
        'mark': {'type': 'line', 'interpolate': 'step-after', 'strokeWidth': 1, 'strokeDash': [2, 3], 'color': INK},
        'encoding': {'x': {'field': x, 'type': 'quantitative'}, 'y': {'field': 'value', 'type': 'quantitative'}},
    }
    beyond = {'data': {'name': 'beyond'},
              'mark': {'type': 'point', 'shape': 'triangle-up', 'size': 70, 'filled': True, 'opacity': 1},
              'encoding': {**encoding, 'tooltip': tooltip(told)}}  # fmt: skip
    floor = {'data': {'name': 'floor'}, 'mark': {'type': 'rule', 'strokeDash': [5, 4], 'color': INK},
             'encoding': {'y': {'field': 'value', 'type': 'quantitative'}}}  # fmt: skip
    drawn = {'data': {'name': 'points'}, 'layer': [bars, *lines, points], 'encoding': encoding}
    return styled({'layer': [floor, drawn, front, beyond]}, 280)


def dots(study: StudyRecord) -> Spec:
    """Each variant with its sampler on the leaderboard and its 95% interval; without data, like `quality`."""
    y = {'field': 'label', 'type': 'nominal', 'sort': {'field': 'value'}, 'title': None,
         'axis': {'labelLimit': 320, 'ticks': False, 'domain': False, 'labelOverlap': False, 'grid': True}}  # fmt: skip
    x = {'type': 'quantitative', 'title': '', 'scale': {'zero': False, 'padding': 14}, 'axis': {'tickCount': 6}}
    marks = marked(series(study), 'series')
    rule = {'mark': {'type': 'rule', 'strokeWidth': 2},
            'encoding': {'x': {**x, 'field': 'low'}, 'x2': {'field': 'high'}}}  # fmt: skip
    point = {'mark': {'type': 'point', 'filled': True, 'size': 110, 'opacity': 1},
             'encoding': {'x': {**x, 'field': 'value'}, 'shape': marks['shape'],
                          'tooltip': tooltip(TOLD)}}  # fmt: skip
    floor = {'data': {'name': 'floor'}, 'mark': {'type': 'rule', 'strokeDash': [5, 4], 'color': INK},
             'encoding': {'x': {'field': 'value', 'type': 'quantitative'}}}  # fmt: skip
    drawn = {'data': {'name': 'points'}, 'layer': [rule, point], 'encoding': {'y': y, 'color': marks['color']}}
    return styled({'layer': [floor, drawn]}, 28)


def filled(spec: Spec, points: Sequence[Mapping[str, Any]], real: Mapping[str, float], metric: str) -> Spec | None:
    """Fill a figure of quality with the points of a metric, as the page's script does; None if there are none."""
    chosen = cells.BY_NAME[metric]
    x = spec['layer'][1]['encoding']['x']
    cost = x['field']
    data = [p for p in points if p['metric'] == metric and p[cost] and (COSTS[cost][2] or p['top'])]
    if not data:
        return None
    y = spec['layer'][1]['encoding']['y']
    y['title'] = f'{chosen.title} ({"lower" if chosen.lower_is_better else "higher"} is better)'
    floor = [real[metric]] if metric in real else []
    heights = [*(point[end] for point in data for end in ('low', 'high')), *floor]
    if chosen.lower_is_better and min(heights) > 0:  # an unbiased estimate of a squared distance may be negative
        y['axis']['values'] = ticks(heights)
    else:
        y['scale'] = {'type': 'linear', 'zero': False, 'padding': 12}
    x['axis']['values'] = ticks([point[cost] for point in data])
    spec['layer'][1]['layer'][0]['encoding']['y'] = {**y, 'field': 'low'}
    for key in (spec['layer'][1]['encoding']['color'], spec['layer'][1]['layer'][-1]['encoding']['shape']):
        if key['legend']:
            key['legend']['values'] = list(dict.fromkeys(point['series'] for point in data))
    layers = [*([spec['layer'][0]] if floor else []), spec['layer'][1], spec['layer'][2]]
    found = front(data, cost, bool(chosen.lower_is_better))
    return {**spec, 'layer': layers,
            'datasets': {'points': data, 'front': found, 'floor': [{'value': value} for value in floor]}}  # fmt: skip


def dotted(study: StudyRecord, points: Sequence[Mapping[str, Any]], real: Mapping[str, float], metric: str) -> Spec:
    """Fill `dots` with the points of a metric, as the page's script does."""
    chosen, spec = cells.BY_NAME[metric], dots(study)
    data = [p for p in points if p['metric'] == metric and (p['top'] or len(study.variants) == 1)]
    floor, drawn = spec['layer']
    lower = bool(chosen.lower_is_better)
    drawn['encoding']['y']['sort']['order'] = 'ascending' if lower else 'descending'
    for layer in drawn['layer']:
        layer['encoding']['x']['title'] = f'{chosen.title} ({"lower" if lower else "higher"} is better)'
    return {**spec, 'height': 24 * len(data), 'layer': [floor, drawn] if metric in real else [drawn],
            'datasets': {'points': data, 'floor': [{'value': real.get(metric)}]}}  # fmt: skip


def front(points: Sequence[Mapping[str, Any]], cost: str, lower: bool) -> list[dict[str, Any]]:
    """Return the Pareto front: the points that no other beats in both value and cost, ordered by cost."""
    sign = 1 if lower else -1
    found: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point[cost], sign * point['value'])):
        if not found or sign * point['value'] < sign * found[-1]['value']:
            found.append({cost: point[cost], 'value': point['value']})
    return found


def ticks(values: Sequence[float]) -> list[float] | None:
    """1, 2 and 5 of each decade around the values, or only 1 if there are many; None leaves the choice to Vega."""
    low, high = min(values) * 0.9, max(values) * 1.1
    if low <= 0:
        return None
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f'{step}e{decade}') for decade in decades for step in (1, 2, 5)]
    inside = [tick for tick in found if low <= tick <= high]
    return (
        None if len(inside) < 2 else inside if len(inside) <= 9 else [tick for tick in inside if f'{tick:e}'[0] == '1']
    )


def bits_per_dim(study: StudyRecord, *, legend: bool = False, models: Set[str] | None = None) -> Spec | None:
    """Bits per dimension with 95% intervals. The shape shows what kind of number it is."""
    found = [cell for cell in cells.of(study, LIKELIHOOD) if models is None or cell.variant in models]
    if not found:
        return None
    data = [
        {
            'name': f'{cell.variant} · {cell.protocol.get("method")}',
            'variant': cell.variant,
            'kind': str(cell.rows[0]['kind']).replace('_', ' '),
            'value': cell.value,
            **dict(zip(('low', 'high'), cell.interval or (cell.value, cell.value), strict=True)),
            'seeds': cell.seeds,
            'n': cell.rows[0]['n'],
            **_told(cell, False),
        }
        for cell in found
    ]
    data = [point for point in data if point['kind'] in KINDS]
    data.sort(key=lambda point: (KINDS.index(point['kind']), point['value']))  # kinds are not comparable
    title = 'bits per dimension (lower is better)'
    y = {'field': 'name', 'type': 'nominal', 'sort': [point['name'] for point in data], 'title': None,
         'axis': {'labelLimit': 220, 'ticks': False, 'domain': False, 'labelOverlap': False, 'grid': True}}  # fmt: skip
    x = {'type': 'quantitative', 'title': title, 'scale': {'zero': False, 'padding': 10}, 'axis': {'tickCount': 6}}
    kinds = {'field': 'kind', 'type': 'nominal', 'title': None, 'scale': {
        'domain': list(KINDS), 'range': ['square', 'triangle-left', 'circle'],
    }, 'legend': {'symbolFillColor': INK, 'symbolStrokeColor': INK, 'orient': 'top'} if legend else None}  # fmt: skip
    told = (
        ('name', 'model', ''),
        ('kind', 'kind', ''),
        ('said', 'bits/dim', ''),
        ('interval', '95% interval', ''),
        ('seeds', 'seeds', ''),
        ('n', 'images', ''),
    )
    return styled({
        'data': {'values': data},
        'encoding': {'y': y, 'color': marked([variant.name for variant in study.variants], 'variant')['color']},
        'layer': [
            {'mark': {'type': 'rule', 'strokeWidth': 2},
             'encoding': {'x': {**x, 'field': 'low'}, 'x2': {'field': 'high'}}},
            {'mark': {'type': 'point', 'filled': True, 'size': 110, 'opacity': 1},
             'encoding': {'x': {**x, 'field': 'value'}, 'shape': kinds, 'tooltip': tooltip(told)}},
        ],
    }, 24 * len(data) + 10)  # fmt: skip


def losses(variant: Variant) -> Spec | None:
    """Every loss that the trials of a variant logged, one line per seed. Marks show where updates were skipped."""
    data, skipped = [], []
    for trial in variant.trials:
        data += [
            {
                'trial': trial.name,
                'step': row['step'],
                'loss': name.removesuffix('/loss'),
                'value': float(f'{value:.5g}'),
            }
            for row in _thinned(trial.metrics)
            for name, value in row.items()
            if name.endswith('/loss') and value is not None
        ]
        skipped += _skipped(trial.name, trial.metrics)
    if len({point['step'] for point in data}) < 2:
        return None
    step = {'field': 'step', 'type': 'quantitative', 'title': 'step', 'axis': {'tickCount': 4, 'format': '~s'}}
    told = (('trial', 'trial', ''), ('step', 'step', ''), ('loss', 'loss', ''), ('value', 'value', '.4g'))
    lines = {
        'data': {'values': data},
        'mark': {'type': 'line', 'strokeWidth': 1.75, 'opacity': 0.85},
        'encoding': {
            'x': step,
            'y': {'field': 'value', 'type': 'quantitative', 'title': None, 'scale': {'zero': False},
                  'axis': {'tickCount': 4, 'format': '~g'}},
            'color': {'field': 'loss', 'type': 'nominal', 'title': None,
                      'scale': {'range': list(map(colour, range(len(COLOURS))))},
                      'legend': {'orient': 'top', 'offset': 4}},
            'strokeDash': {'field': 'loss', 'type': 'nominal', 'title': None,
                           'scale': {'range': [list(dash) for dash in DASHES]}},
            'detail': {'field': 'trial'},
            'tooltip': tooltip(told),
        },
    }  # fmt: skip
    marks = {
        'data': {'values': skipped},
        'mark': {'type': 'point', 'shape': 'triangle-down', 'filled': True, 'size': 70, 'color': colour(1),
                 'opacity': 1},
        'encoding': {'x': step, 'y': {'value': 6},
                     'tooltip': tooltip((('trial', 'trial', ''), ('step', 'up to step', ''),
                                          ('count', 'skipped updates', '')))},
    }  # fmt: skip
    return styled({'layer': [lines, *([marks] if skipped else [])]}, 150)


def _skipped(trial: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The steps at which the count of skipped updates rose, and by how much."""
    found, before = [], 0
    for row in rows:
        total = row.get('skipped/total') or 0
        if total > before:
            found.append({'trial': trial, 'step': row['step'], 'count': total - before})
        before = total
    return found


def _thinned(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return rows[:: max(1, -(-len(rows) // CURVE_POINTS))]
