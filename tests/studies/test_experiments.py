"""Every study that ships resolves and plans, without its data and without a teacher that was trained."""

import pathlib

import pytest

from genbench.data import opening
from genbench.evaluation import further
from genbench.studies import costs, plan, preview, study

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / 'experiments').glob('*.py'))


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_a_study_that_ships_plans_and_says_how_it_is_run(path, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, 'estimate', lambda requests: [costs.Cost(10, [(None, [1e9])]) for _ in requests])
    found = plan.make(study.load(str(path)), tmp_path)
    shown = list(preview.lines(found, found.select()))
    assert len(shown) >= 1 + len(found.trials)
    for one in found.trials:
        if further.asked(one.config.evaluation.metrics):
            opening.spec(one.config.data)  # so the plan has found that the trial's model has what its metrics need
    text = path.read_text()
    assert f'genbench run experiments/{path.name} --out runs/{path.stem}' in text
    assert 'Expect' in text or 'not yet run' in text.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_families_of_the_digits_study_get_the_same_operations(tmp_path):
    found = plan.make(study.load(str(ROOT / 'experiments' / 'digits_families.py')), tmp_path)
    trained = [one for one in found.trials if one.trial.matched]
    assert len(trained) == 18
    for one in trained:
        assert one.matched['target'] * 0.98 < one.matched['training_flops'] <= one.matched['target'], one.name
    steps = {one.trial.variant: one.config.train.num_steps for one in trained}
    assert all(one.config.train.num_steps == steps[one.trial.variant] for one in trained)
