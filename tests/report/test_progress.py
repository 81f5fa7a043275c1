"""What runs scored while they trained is drawn against steps, FLOPs and time."""

import json

import pytest

from genbench.report import collect, page, papers, progress

FD = {'num_samples': 64, 'sampler': 'direct', 'reference': {'n': 180}}


@pytest.fixture(scope='module')
def folder(make_study, tmp_path_factory):
    folder = make_study(tmp_path_factory.mktemp('scored'))
    for name, first in (('wide-0', 8.0), ('narrow-0', 16.0)):
        path = folder / 'trials' / name
        rows = [{'step': step, 'wall_time': step / 2, 'train/flops': 1e6 * step, 'net/loss': 1 / step}
                | ({'evaluation/fd': first / step, 'evaluation/bits_per_dim': 3 - step / 10} if step % 4 == 0 else {})
                for step in (2, 4, 6, 8)]  # fmt: skip
        (path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
        (path / 'monitor.json').write_text(json.dumps([{'step': 0, 'protocol': {'fd': FD}}]))
    return folder


def test_a_point_has_the_costs_of_its_row(folder):
    points = progress.points(collect.read(folder), {'wide'})
    assert [(p['metric'], p['value'], p['step'], p['flops'], p['seconds']) for p in points] == [
        ('fd', 2.0, 4, 4e6, 2.0), ('bits_per_dim', 2.6, 4, 4e6, 2.0),
        ('fd', 1.0, 8, 8e6, 4.0), ('bits_per_dim', 2.2, 8, 8e6, 4.0),
    ]  # fmt: skip
    assert {point['trial'] for point in points} == {'wide-0'}


def test_the_page_and_papers_draw_each_score_against_each_cost(folder, tmp_path):
    html = page.write(folder, out=tmp_path / 'page.html').read_text()
    for score in ('FD', 'bits/dim'):
        for cost in ('step', 'training FLOPs', 'training time, seconds'):
            assert f'<h3>{score} against {cost}</h3>' in html
    names = {path.name for path in papers.write(folder, into=tmp_path, models=['narrow'])}
    assert {'fd_while_training_against_flops.png', 'bits_per_dim_while_training_against_seconds.pdf'} <= names


def test_scores_by_different_protocols_are_said_and_older_ones_are_left_out(folder):
    path = folder / 'trials' / 'narrow-0' / 'monitor.json'
    before = path.read_text()
    path.write_text(json.dumps([{'step': 0, 'protocol': {'fd': FD}},
                                {'step': 4, 'protocol': {'fd': {**FD, 'num_samples': 32}}}]))  # fmt: skip
    try:
        study = collect.read(folder)
        assert not progress.alike(study, 'fd')
        assert [point['step'] for point in progress.points(study, {'narrow'}) if point['metric'] == 'fd'] == [8]
    finally:
        path.write_text(before)
    assert progress.alike(collect.read(folder), 'fd')


def test_a_study_without_scores_has_no_such_section(make_study, tmp_path):
    html = page.write(make_study(tmp_path)).read_text()
    assert 'id="progress"' not in html
