"""Figures show what rows say, at axes that fit, and are written for papers."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from genbench.errors import UserError
from genbench.report import cells, collect, figures, leaderboard, marks, papers


@pytest.fixture(scope='module')
def folder(make_study, tmp_path_factory):
    return make_study(tmp_path_factory.mktemp('drawn'))


@pytest.fixture(scope='module')
def study(folder):
    return collect.read(folder)


def chosen(study, **wanted):
    points = figures.quality_points(study)
    return [point for point in points if all(point[key] == value for key, value in wanted.items())]


def test_a_point_is_the_mean_over_seeds_with_what_it_cost(study):
    (point,) = chosen(study, metric='fd', variant='wide', nfe=1)
    low, high = stats.t.interval(0.95, 2, 3, stats.sem([2, 3, 4]))
    assert (point['value'], point['seeds']) == (3, 3) and point['high'] == pytest.approx(high)
    assert point['low'] == pytest.approx(max(low, 0.3))  # a logarithm is wanted of it
    assert point['said'] == '3.00 ± 1.00' and point['label'] == 'wide · direct · 1'
    assert (point['flops'], point['seconds'], point['milliseconds']) == (2e9, 30, 2)
    assert point['top'] and not chosen(study, metric='fd', variant='wide', nfe=4)[0]['top']


def test_the_colours_of_both_themes_can_be_read():
    """WCAG 2's contrast, 4.5 to both grounds of their theme."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colours, grounds in ((marks.COLOURS, ('#ffffff', '#f6f7f9')), (marks.DARK, ('#12151a', '#1a1e25', '#222832'))):
        for one in colours:
            for ground in grounds:
                low, high = sorted((luminance(one), luminance(ground)))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (one, ground)


def test_a_distilled_model_has_the_costs_of_its_teacher(study, monkeypatch):
    narrow = next(trial for trial in study.trials if trial.name == 'narrow-0')
    monkeypatch.setitem(narrow.config, 'family', {'name': 'x', 'teacher': 'somewhere/trials/wide-0@ema'})
    fresh = collect.StudyRecord(study.folder, study.description, study.rows, study.trials)
    (cell,) = [cell for cell in cells.of(fresh, 'training_flops') if cell.variant == 'narrow']
    assert [row['value'] for row in cell.rows] == [20e9 + 2e9, 20e9] and cell.rows[0]['lent'] == {'wide': 2e9}
    assert 'with wide' in leaderboard.html(fresh, leaderboard.Tips())


def test_nothing_beats_a_point_of_the_front():
    rng = np.random.default_rng(0)
    numbers = zip(rng.integers(1, 9, 40).tolist(), rng.normal(size=40).tolist(), strict=True)
    points = [{'nfe': cost, 'value': value} for cost, value in numbers]
    kept = [(p['nfe'], p['value']) for p in figures.front(points, 'nfe', True)]
    beaten = [p for p in points
              if any(q['nfe'] <= p['nfe'] and q['value'] <= p['value'] and q is not p for q in points)]  # fmt: skip
    assert kept == sorted((p['nfe'], p['value']) for p in points if p not in beaten)


def test_samplers_of_a_model_are_told_apart_by_their_dashes(study):
    assert {point['nfe']: point['dash'] for point in chosen(study, metric='fd', variant='wide')} == {1: 0, 4: 1}


def test_a_study_of_one_variant_compares_its_samplers(study):
    alone = collect.StudyRecord(study.folder, study.description, study.rows, list(study.variants[0].trials))
    assert figures.series(study) == ['wide', 'narrow']
    assert figures.series(alone) == ['direct', 'ddim']
    assert {point['series'] for point in figures.quality_points(alone) if point['variant'] == 'wide'} == {
        'direct',
        'ddim',
    }


def test_kinds_of_likelihood_are_told_apart_by_shape(study):
    spec = figures.bits_per_dim(study)
    shape = spec['layer'][1]['encoding']['shape']
    assert shape['field'] == 'kind' and len(set(shape['scale']['range'])) == len(shape['scale']['domain']) == 3


def test_variants_differ_in_colour_and_shape(study):
    spec = figures.quality(study, 'nfe')
    drawn = spec['layer'][1]
    colours, shapes = drawn['encoding']['color'], drawn['layer'][-1]['encoding']['shape']
    for scale in (colours['scale'], shapes['scale']):
        assert scale['domain'] == ['wide', 'narrow'] and len(set(scale['range'])) == 2


def test_skipped_updates_are_marked_where_they_were_skipped(study):
    lines, marks = figures.losses(study.variants[0])['layer']
    assert marks['data']['values'] == [{'trial': 'wide-1', 'step': 6, 'count': 2}]
    assert {point['trial'] for point in lines['data']['values']} == {'wide-0', 'wide-1', 'wide-2'}


@pytest.mark.parametrize(
    ('values', 'expected'),
    [([1, 20], [1, 2, 5, 10, 20]), ([1, 1e9], [10.0**k for k in range(10)]), ([3, 4], None), ([0, 1], None)],
)
def test_ticks_are_round_and_few(values, expected):
    assert figures.ticks(values) == expected


def test_figures_for_papers_are_pictures_on_white(folder):
    written = papers.write(folder)
    names = {path.name for path in written}
    assert {
        'fd_at_a_glance.png',
        'fd_against_nfe.png',
        'fd_against_nfe.pdf',
        'bits_per_dim.pdf',
        'losses_wide.png',
    } <= names
    for path in written:
        if path.suffix == '.pdf':
            assert path.read_bytes().startswith(b'%PDF-')
        else:
            image = Image.open(path).convert('RGB')
            assert image.getpixel((1, 1)) == (255, 255, 255) and image.width > 1000
            assert len(image.getcolors(maxcolors=2**24)) > 20  # something is drawn


def test_figures_for_papers_take_size_font_and_models(study, monkeypatch):
    import vl_convert

    drawn = []
    monkeypatch.setattr(vl_convert, 'vegalite_to_png', lambda spec, scale: drawn.append(spec) or b'')
    monkeypatch.setattr(vl_convert, 'vegalite_to_pdf', lambda spec: b'')
    papers.write(study.folder, paper=papers.Paper.of('240x180', 'Arial', 8.0), models=['narrow'])
    spec = drawn[1]
    assert (spec['width'], spec['height'], spec['config']['font']) == (240, 180, 'Arial')
    assert spec['config']['axis']['labelFontSize'] == 8.0 and 'var(' not in json.dumps(spec)
    assert {point['variant'] for point in spec['datasets']['points']} == {'narrow'}
    assert spec['layer'][-2]['encoding']['color']['legend']['values'] == ['narrow']
    with pytest.raises(UserError, match="no model 'wild' .--models.. Did you mean wide"):
        papers.write(study.folder, models=['wild'])
    with pytest.raises(UserError, match='write WIDTHxHEIGHT'):
        papers.Paper.of('wide')


def test_a_study_without_numbers_says_so(tmp_path):
    (tmp_path / 'study.json').write_text(json.dumps({'title': '', 'trials': []}))
    with pytest.raises(UserError, match='no numbers to plot yet'):
        papers.write(tmp_path)


def test_distances_below_zero_have_a_linear_axis(study):
    points = [{**point, 'metric': 'kd', 'value': -0.03, 'low': -0.1} for point in chosen(study, metric='fd')]
    drawn = figures.filled(figures.quality(study, 'nfe'), points, {}, 'kd')
    assert drawn['layer'][0]['encoding']['y']['scale']['type'] == 'linear'
    usual = figures.filled(figures.quality(study, 'nfe'), chosen(study, metric='fd'), {}, 'fd')
    assert usual['layer'][0]['encoding']['y']['scale']['type'] == 'log'


def test_intervals_of_seeds_that_agree_are_those_of_their_test_images(study):
    (cell,) = [cell for cell in cells.of(study, 'bits_per_dim') if cell.variant == 'wide']
    low, high = cell.interval
    low, high = cell.interval
    assert cell.seeds == 3 and high - low == pytest.approx(2 * stats.t.ppf(0.975, 63) * 0.1)
    (point,) = [p for p in figures.bits_per_dim(study)['data']['values'] if p['variant'] == 'wide']
    assert (point['low'], point['high']) == (low, high)
