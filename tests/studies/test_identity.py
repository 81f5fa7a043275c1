"""The identity of a trial is what its numbers depend on, and nothing else."""

import pathlib
import time

import pytest

from genbench.studies import identity, package


def test_what_changes_no_number_changes_no_identity(tiny):
    base = identity.of(tiny('vae'))
    for same in ('train.log_every=7', 'data.workers=2', 'checkpoint.every=3', 'data.data_dir=elsewhere', 'mesh.fsdp=2'):
        assert identity.of(tiny('vae', same)) == base, same


@pytest.mark.parametrize(
    'change', ['train.seed=5', 'train.num_steps=9', 'family.latent=3', 'optimizer.learning_rate=1']
)
def test_what_changes_training_changes_the_identity_of_training_only(tiny, change):
    base, other = identity.of(tiny('vae')), identity.of(tiny('vae', change))
    assert (base.training, base.trial_id) != (other.training, other.trial_id)
    assert base.evaluation == other.evaluation


def test_evaluation_and_its_grid_are_apart_from_training(tiny):
    base, other = identity.of(tiny('vae')), identity.of(tiny('vae', 'evaluation.sets=3'))
    assert base.training == other.training
    assert len({one.evaluation for one in (base, other, identity.of(tiny('vae'), ['seed=1,2']))}) == 3


def test_a_student_is_another_one_with_another_teacher_and_the_same_where_the_study_was_moved(tiny):
    here, moved = (tiny('consistency', f'family.teacher={place}/trials/diffusion') for place in ('runs/a', '/b/c'))
    assert identity.of(here, (), {'diffusion': 'x'}) == identity.of(moved, (), {'diffusion': 'x'})
    assert identity.of(here, (), {'diffusion': 'x'}) != identity.of(here, (), {'diffusion': 'y'})
    apart = [identity.of(tiny('consistency', f'family.teacher={path}')) for path in ('runs/a/diffusion', 'b/diffusion')]
    assert apart[0] != apart[1]


def test_the_average_that_a_trial_lends_is_part_of_the_identity_of_who_borrows_it(tiny):
    def of(teacher):
        return identity.of(tiny('consistency', f'family.teacher={teacher}'), (), {'diffusion': 'x'})

    usual, here, moved = map(of, ('a/trials/diffusion', 'a/trials/diffusion@current', 'b/trials/diffusion@current'))
    assert here == moved != usual


def test_the_code_that_counts_is_hashed_quickly_and_the_rest_is_not(monkeypatch, tmp_path):
    root = pathlib.Path(package.__file__).parents[1]
    identity.code.cache_clear()
    began = time.perf_counter()
    base = identity.code()
    assert time.perf_counter() - began < 0.5  # 10 ms on a quiet machine

    def with_change(name):
        copy = tmp_path / name.replace('/', '_') / 'genbench'
        for path in root.rglob('*.py'):
            (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(root)).write_bytes(path.read_bytes())
        (copy / name).write_text('x = 1\n')
        monkeypatch.setattr(package, '__file__', str(copy / 'studies' / 'package.py'))
        identity.code.cache_clear()
        return identity.code()

    assert with_change('report/page.py') == with_change('cli.py') == with_change('studies/runner.py') == base
    assert with_change('training/step.py') != base
    assert with_change('families/new.py') != base
    identity.code.cache_clear()


def test_a_run_of_an_older_format_is_known_by_its_config(tiny, tmp_path):
    config = tiny('vae')
    (tmp_path / 'config.json').write_text(identity.configs.to_json(config))
    found = identity.found(tmp_path, {})
    assert found.same_config == identity.of(config).same_config and found.code == ''


def test_a_folder_that_holds_nothing_has_no_identity(tmp_path):
    assert identity.found(tmp_path, {}) is None
