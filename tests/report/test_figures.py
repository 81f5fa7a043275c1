"""Figures show what rows say, at axes that fit, and are written for papers."""

import json

import pytest
from PIL import Image
from scipy import stats

from genbench.errors import UserError
from genbench.report import cells, collect, figures, papers


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
    assert (point['value'], point['low'], point['high'], point['seeds']) == (3, 2, 4, 3)
    assert (point['flops'], point['seconds'], point['milliseconds']) == (2e9, 30, 2)
    assert point['top'] and not chosen(study, metric='fd', variant='wide', nfe=4)[0]['top']


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
    assert {'fd_against_nfe.png', 'fd_against_nfe.pdf', 'bits_per_dim.pdf', 'losses_wide.png'} <= names
    for path in written:
        if path.suffix == '.pdf':
            assert path.read_bytes().startswith(b'%PDF-')
        else:
            image = Image.open(path).convert('RGB')
            assert image.getpixel((1, 1)) == (255, 255, 255) and image.width > 1000
            assert len(image.getcolors(maxcolors=2**24)) > 20  # something is drawn


def test_a_study_without_numbers_says_so(tmp_path):
    (tmp_path / 'study.json').write_text(json.dumps({'title': '', 'trials': []}))
    with pytest.raises(UserError, match='no numbers to draw yet'):
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
