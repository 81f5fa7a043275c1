"""The first study of a new user: the families of the digits study, small enough for minutes. It is planned, not run."""

import pathlib

from genbench.studies import plan, study
from genbench.training.observing import GRID_SIZE

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[2] / 'experiments'


def planned(name, folder):
    return plan.make(study.load(str(EXPERIMENTS / name)), folder)


def test_a_first_look_has_the_families_of_the_digits_study_with_one_seed_each(tmp_path):
    # No budget: the operations of a step need not be counted before the first trial starts.
    first, whole = planned('first_look.py', tmp_path), study.load(str(EXPERIMENTS / 'digits_families.py'))
    assert [one.trial.variant for one in first.trials] == list(dict.fromkeys(one.variant for one in whole.trials))
    assert {one.config.train.seed for one in first.trials} == {0} and first.study.budget is None
    assert [one.trial.after for one in first.trials if one.trial.after] == [('diffusion',)]


def test_all_of_a_first_look_is_measured_alike_with_the_feature_network_of_the_other_studies(tmp_path):
    configs = [one.config.evaluation for one in planned('first_look.py', tmp_path).trials]
    (size,), (sets,) = ({one.num_samples for one in configs}, {one.sets for one in configs})
    assert (size, sets) == (180, 2)  # of the 360 test images, half are the reference
    assert len({(one.classifier.to_json(), one.ode.to_json(), tuple(one.metrics)) for one in configs}) == 1
    whole = study.load(str(EXPERIMENTS / 'digits_families.py')).trials[0]
    assert study.resolve(whole, tmp_path).evaluation.classifier.to_json() == configs[0].classifier.to_json()


def test_training_sees_few_images_and_one_program_serves_its_grid_and_the_samples(tmp_path):
    for one in planned('first_look.py', tmp_path).trials:
        assert one.config.train.num_steps * one.config.train.batch_size <= 60_000
        assert one.config.evaluation.batch_size == GRID_SIZE
