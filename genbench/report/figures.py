"""Figures of the page, as Vega-Lite through Altair: families keep one colour and one shape throughout."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from genbench.report.collect import StudyRecord

COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6d31', '#7f7f7f']  # Okabe & Ito 2008
INK = '#808890'  # legible on light and on dark
CURVE_POINTS = 200
KINDS = ['exact', 'lower bound', 'estimate']


def _styled(chart: Any, height: int) -> dict[str, Any]:
    """The chart's specification, as wide as its place on the page."""
    chart = chart.properties(width='container', height=height, background='transparent')
    chart = (
        chart.configure_view(stroke=None)
        .configure_axis(
            labelColor=INK, titleColor=INK, gridColor=INK, gridOpacity=0.18, domainColor=INK, tickColor=INK,
            labelFontSize=12, titleFontSize=12, titleFontWeight='normal',
        )
        .configure_legend(labelColor=INK, titleColor=INK, labelFontSize=12, symbolSize=90)
    )  # fmt: skip
    return chart.to_dict()


def _colour(study: StudyRecord) -> alt.Color:
    names = [trial.name for trial in study.trials]
    palette = (COLOURS * (len(names) // len(COLOURS) + 1))[: len(names)]
    return alt.Color('trial:N', scale=alt.Scale(domain=names, range=palette), title=None)


def distance_against_evaluations(study: StudyRecord) -> dict[str, Any] | None:
    """Fréchet distance against network evaluations, both on log axes; dashed lines for one-shot families."""
    rows = [row for row in study.distances() if row['trial'] != 'real']
    if not rows:
        return None
    data = [{key: row[key] for key in ('trial', 'sampler', 'nfe', 'value', 'n')} for row in rows]
    pick = alt.selection_point(fields=['trial'], bind='legend')
    base = alt.Chart(alt.Data(values=data)).encode(
        x=alt.X('nfe:Q', scale=alt.Scale(type='log', nice=False, padding=12), title='network evaluations per image'),
        y=alt.Y('value:Q', scale=alt.Scale(type='log'), title='Fréchet distance to the train set'),
        color=_colour(study),
        detail='sampler:N',
        opacity=alt.condition(pick, alt.value(1.0), alt.value(0.12)),
        tooltip=['trial:N', 'sampler:N', 'nfe:Q', alt.Tooltip('value:Q', format='.3f', title='FD'), 'n:Q'],
    )
    points = base.mark_point(filled=True, size=80).encode(
        shape=alt.Shape('sampler:N', title='sampler', legend=alt.Legend(symbolFillColor=INK, symbolStrokeColor=INK))
    )
    layers = [base.mark_line(strokeWidth=2), points.add_params(pick)]
    floor = [row['value'] for row in study.distances() if row['trial'] == 'real']
    if floor:
        real = alt.Chart(alt.Data(values=[{'value': floor[0], 'label': 'held-out real images'}]))
        layers.append(real.mark_rule(strokeDash=[5, 4], color=INK).encode(y='value:Q'))
        layers.append(
            real.mark_text(align='right', dy=-7, color=INK, fontSize=12).encode(
                y='value:Q', x=alt.value('width'), text='label:N'
            )
        )
    return _styled(alt.layer(*layers), 340)


def bits_per_dim(study: StudyRecord) -> dict[str, Any] | None:
    """Bits per dimension with standard errors; the shape says what kind of number it is."""
    rows = study.select('bits_per_dim')
    if not rows:
        return None
    data = [
        {
            'name': f'{row["trial"]} · {row["protocol"]["method"]}',
            'trial': row['trial'],
            'kind': row['kind'].replace('_', ' '),
            'value': row['value'],
            'low': row['value'] - 1.96 * (row['std_err'] or 0),
            'high': row['value'] + 1.96 * (row['std_err'] or 0),
            'n': row['n'],
        }
        for row in rows
    ]
    data.sort(key=lambda point: (KINDS.index(point['kind']), point['value']))  # kinds are not ranked as equals
    order = [point['name'] for point in data]
    base = alt.Chart(alt.Data(values=data)).encode(
        y=alt.Y('name:N', sort=order, title=None, axis=alt.Axis(labelLimit=240)), color=_colour(study)
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X('low:Q', title='bits per dimension on the test split (lower is better), 95% interval',
                scale=alt.Scale(zero=False)), x2='high:Q',
    )  # fmt: skip
    shape = alt.Shape(
        'kind:N', title='kind', legend=alt.Legend(symbolFillColor=INK, symbolStrokeColor=INK),
        scale=alt.Scale(domain=KINDS, range=['square', 'triangle-left', 'circle']),
    )  # fmt: skip
    points = base.mark_point(filled=True, size=110).encode(
        x='value:Q', shape=shape,
        tooltip=['name:N', 'kind:N', alt.Tooltip('value:Q', format='.3f'), 'n:Q'],
    )  # fmt: skip
    return _styled(alt.layer(bars, points), 40 + 34 * len(data))


def loss_curves(study: StudyRecord) -> list[tuple[str, dict[str, Any]]]:
    """(trial, figure) of every loss a trial logged, against its steps."""
    figures = []
    for trial in study.trials:
        data = [
            {'step': row['step'], 'loss': name.removesuffix('/loss'), 'value': value}
            for row in _thinned(trial.metrics)
            for name, value in row.items()
            if name.endswith('/loss') and value is not None
        ]
        if len({point['step'] for point in data}) < 2:
            continue
        chart = alt.Chart(alt.Data(values=data)).mark_line(strokeWidth=2).encode(
            x=alt.X('step:Q', title='step', axis=alt.Axis(tickCount=5)),
            y=alt.Y('value:Q', title=None, scale=alt.Scale(zero=False)),
            color=alt.Color('loss:N', title=None, scale=alt.Scale(range=COLOURS), legend=alt.Legend(orient='top')),
            tooltip=['step:Q', 'loss:N', alt.Tooltip('value:Q', format='.4f')],
        )  # fmt: skip
        figures.append((trial.name, _styled(chart, 150)))
    return figures


def _thinned(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return rows[:: max(1, len(rows) // CURVE_POINTS)]
