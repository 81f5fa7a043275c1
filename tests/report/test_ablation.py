"""An ablation table pairs seeds with the baseline's, and says when a difference is one."""

import pytest
from scipy import stats

from genbench.report import ablation, collect


@pytest.fixture(scope='module')
def study(make_study, tmp_path_factory):
    return collect.read(make_study(tmp_path_factory.mktemp('ablated')))


def test_differences_are_paired_over_shared_seeds(study):
    html = ablation.html(study)
    assert 'narrow' in html and 'wide (baseline)' in html
    assert '+18.00<b> worse</b><span class="kind">[+18.00, +18.00], n = 2' in html  # of seeds 0 and 1, both 18 apart


def test_an_interval_is_students(study, monkeypatch):
    rows = [row for row in study.rows if row['trial'] == 'narrow-1' and row['metric'] == 'fd' and row['nfe'] == 1]
    monkeypatch.setitem(rows[0], 'value', 25.0)
    ablated = collect.StudyRecord(study.folder, study.description, study.rows, study.trials)
    interval = stats.ttest_rel([20.0, 25.0], [2.0, 3.0]).confidence_interval(0.95)
    low, high = (f'{value:+.2f}'.replace('-', '−') for value in (interval.low, interval.high))
    assert f'+20.00<span class="kind">[{low}, {high}], n = 2' in ablation.html(ablated)  # too wide for a verdict


def test_the_settings_that_differ_are_named_without_the_seed(study):
    wide, narrow = study.variants
    assert ablation.settings_against(wide, narrow) == {'optimizer.learning_rate': 2e-3}


def test_a_study_without_a_baseline_has_no_table(study):
    description = {**study.description, 'baseline': ''}
    assert ablation.html(collect.StudyRecord(study.folder, description, study.rows, study.trials)) == ''
