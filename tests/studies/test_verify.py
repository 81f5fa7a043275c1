"""Verify: cheap checks of every recipe, and the comparison of a finished run with its published number."""

import dataclasses
import json
import math
import re
import shutil

import pytest

from genbench import cli
from genbench import config as configs
from genbench.errors import UserError
from genbench.evaluation import harness, monitor, results
from genbench.studies import checks, ledger, package, records, verify
from genbench.training import samplers
from genbench.training.metrics import read_rows

RECIPES = [row for row in ledger.rows() if row.config]
# Rows of one recipe have the same network and step. A table over seeds varies little but its data.
DISTINCT = list({(row.config, row.overrides if row.seeds == 1 else row.model): row for row in RECIPES}.values())


# up to 1.5 billion parameters
WIDE = (
    'configs/paper/made_mnist.py', 'configs/paper/maf_mnist.py',
    'configs/imagenet64/tarflow.py', 'configs/imagenet64/jet.py',
)  # fmt: skip
WHOLE = ('ddpm-bpd', 'maf-suite-made-mnist')  # large recipes that take a step at their full size
LATER = (
    'biggan', 'consistency_training', 'dcgan', 'iddpm', 'inductive_moment_matching', 'mean_flow', 'r3gan',
    'rectified_flow', 'sngan', 'style_gan', 'wgan_gp',
)  # fmt: skip
NARROW = {  # by network
    'unet': ('network.channels=32', 'network.multipliers=(1,)'),
    'ncsnpp': ('network.channels=32', 'network.multipliers=(1,)', 'network.blocks=1'),
    'vdm': ('network.channels=32', 'network.blocks=2'),
    'couplings': ('network.channels=8', 'network.multipliers=(1,)', 'network.steps=2'),
    'pixel_cnn': ('network.channels=8', 'network.blocks=1', 'network.scales=1'),
    'made': ('network.hidden=(32, 32)',),
    'maf': ('network.hidden=(32, 32)',),
    'top_down': ('network.width=16', 'network.encoder=32d2,16d2,8d2,4d4,1x1', 'network.decoder=1x1,4m1,8m4,16m8,32m16'),
    'flowpp': ('network.channels=8', 'network.blocks=1', 'network.components=2', 'family.dequantiser_channels=8'),
    'real_nvp': ('network.channels=8', 'network.blocks=1'),
    'residual_flow': ('network.channels=8', 'network.blocks=(1,)', 'network.dense_blocks=1', 'network.dense_width=8'),
    'jet': ('network.width=32', 'network.heads=2', 'network.couplings=2', 'network.depth=1', 'network.patch=8'),
    'tarflow': ('network.width=32', 'network.heads=2', 'network.blocks=2', 'network.depth=1', 'network.patch=8'),
}


def published(row):
    """Whether its recipe is for accelerators: its size is checked here, and other tests take steps of its family."""
    folder, name = row.config.removeprefix('configs/').removesuffix('.py').split('/')
    return row.config not in WIDE and (
        folder in ('ffhq64', 'ffhq1024', 'imagenet64', 'imagenet256', 'imagenet512', 'lsun')
        or folder == 'cifar10'
        and (bool(row.lenders) or name in LATER)
    )


def large(row):
    """Whether a step of its network takes long to compile."""
    return row.config.startswith('configs/cifar10') and 'gaussian' not in row.config


def narrowed(row):
    """Whether its step is taken with a narrow network: all that are large but one, and those with wide layers."""
    return (large(row) or row.config in WIDE) and row.id not in WHOLE


def marked(row):
    return pytest.param(row, id=row.id, marks=[pytest.mark.slow] if large(row) else [])


@pytest.mark.parametrize(
    'row', [marked(row) for row in DISTINCT if not narrowed(row) and not published(row)],
)  # fmt: skip
def test_a_recipe_passes_its_check(row, capsys):
    assert checks.check_and_say(row, print), capsys.readouterr().out


@pytest.mark.parametrize(
    'row', [row for row in DISTINCT if narrowed(row) and not published(row)], ids=lambda row: row.id,
)  # fmt: skip
def test_the_other_large_recipes_have_their_size_and_take_a_step_with_a_narrow_network(row):
    held, words = checks._count(row, checks._ready(row, checks.SIZES[1]).family)
    assert held, words
    narrow = dataclasses.replace(row, overrides=(*row.overrides, *NARROW[verify.resolve(row).network.name]))
    held, words = checks._one_step(checks._ready(narrow, checks.SIZES[1]))
    assert held, words


SIZED = {  # rows whose networks or samplers differ
    (row.config, row.evaluation, *(one for one in row.overrides if not one.startswith(('train.', 'optimizer.')))): row
    for row in filter(published, DISTINCT)
}


@pytest.mark.parametrize('row', SIZED.values(), ids=lambda row: row.id)
def test_a_recipe_for_accelerators_has_its_size_and_samplers_that_it_can_use(row):
    family = checks.smallest(row).family
    held, words = checks._count(row, family)
    assert held, words
    assert all(samplers.parse(text, family) for text in family.config.evaluation.samplers)


def test_a_step_that_does_not_fit_or_builds_on_other_runs_is_only_traced(monkeypatch):
    row = ledger.get('digits-flow-matching')
    monkeypatch.setattr(checks, '_free', lambda: 1e6)
    (*_, said) = (words for _, words in checks.check(row))
    assert said.startswith('one step of 2 images traces (denoiser); not run, since 0 GiB are too little')
    monkeypatch.setattr(checks, 'MANY', 2)
    assert checks._one_step(checks._ready(row, 2))[1].endswith('(denoiser); not run, since these are many images')
    recipe = dataclasses.replace(
        row, config='configs/digits/consistency.py', lenders={'teacher': ['configs/digits/diffusion.py']}, overrides=(),
    )  # fmt: skip
    held, words = checks._one_step(checks._ready(recipe, 2))
    assert held and words == 'one step of 2 images traces (student); not run, since it builds on teacher'


def test_the_runs_that_a_recipe_builds_on_are_trained_first_and_once(tmp_path, tiny, config_file):
    lender = config_file(tiny('diffusion', 'train.num_steps=2', 'checkpoint.every=2'))
    row = dataclasses.replace(
        ledger.get('digits-gaussian'), config='configs/digits/consistency.py',
        lenders={'teacher': [str(lender), 'train.seed=3']},
    )  # fmt: skip
    (named,) = verify._lenders(row, tmp_path / 'row', [])
    (folder,) = tmp_path.glob('teacher-*')
    assert named == f'family.teacher={folder}' and verify.by_this_code(folder)
    assert json.loads((folder / 'config.json').read_text())['train']['seed'] == 3
    trained = (folder / 'summary.json').read_bytes()
    assert verify._lenders(row, tmp_path / 'another', []) == [named]
    assert (folder / 'summary.json').read_bytes() == trained


def test_a_finished_run_that_borrowed_another_run_says_so(tiny, tmp_path, monkeypatch):
    config = tiny('diffusion', 'network.channels=12')
    borrowed = {'teacher': {'config': configs.plain(config)}}
    monkeypatch.setattr(verify.runs.Folder, 'read_manifest', lambda folder: {'borrowed': borrowed})
    recipe = {'teacher': ['configs/digits/diffusion.py', f'train.num_steps={config.train.num_steps}']}
    said = verify._other_lenders(dataclasses.replace(ledger.get('digits-gaussian'), lenders=recipe), tmp_path)
    assert 'network.channels of teacher is 12, 32 in the recipe' in said
    assert not any(words.startswith('train.num_steps') for words in said)


def test_a_recipe_changes_with_a_file_that_it_builds_on(tmp_path, monkeypatch):
    base, config = tmp_path / 'base.py', tmp_path / 'config.py'
    base.write_text('def get_config():\n    return {"data": {"name": "digits"}}\n')
    config.write_text(f'from genbench import config\ndef get_config():\n    return config.read_file({str(base)!r})\n')
    row = dataclasses.replace(ledger.get('digits-gaussian'), config=str(config))
    before = records.recipe(row)
    base.write_text('"""Said otherwise."""\n' + base.read_text())
    assert records.recipe(row) == before
    base.write_text(base.read_text().replace('digits', 'mnist'))
    assert records.recipe(row) != before


def names(config):
    """What the ledger may call the data of a config."""
    plain = config.data.name.removeprefix('folder:')
    if plain == 'imagenet2012':
        return {f'{name}_{size}' for name in ('imagenet', 'imagenet2012') for size in config.data.size}
    return {plain, re.sub(r'(?<=[a-z])(\d+)$', r'_\1', plain)}


@pytest.mark.parametrize('row', RECIPES, ids=lambda row: row.id)
def test_every_recipe_resolves_with_what_it_evaluates(row):
    config = verify.resolve(row)
    assert row.data in names(config)
    assert bool(row.images) == config.data.name.startswith('folder:'), 'what the folder must hold is not said'


def test_a_parameter_count_that_is_not_the_published_one_fails(capsys):
    wrong = dataclasses.replace(ledger.get('digits-flow-matching'), parameters=35.7e6)
    assert not checks.check_and_say(wrong, print)
    assert 'FAIL 205,045 parameters, published 35.7M' in capsys.readouterr().out


@pytest.fixture(scope='module')
def gaussian(tmp_path_factory):
    """(comparison, folder) of the recipe of the digits' Gaussian, trained and evaluated."""
    folder = tmp_path_factory.mktemp('verify') / 'run'
    return verify.compare(ledger.get('digits-gaussian'), workdir=str(folder)), folder


def test_the_floor_of_the_digits_is_reproduced(gaussian):
    comparison, _ = gaussian
    assert comparison.within and not comparison.protocol
    lines = list(comparison.lines())
    assert lines[-1].startswith('reproduced: ')
    assert 'expected  bits_per_dim 2.943 ± 0.017 on digits (measured by this project)' in lines


def test_a_finished_run_is_compared_and_its_differences_are_said(gaussian, tmp_path):
    _, folder = gaussian
    row = ledger.get('digits-gaussian')
    stated = {**row.stated, 'split': 'test[:100]', 'features': 'inception'}
    free = ('the width: 3',)
    other = dataclasses.replace(row, value=2.5, overrides=('train.seed=3',), stated=stated, open=free)
    comparison = verify.compare(other, run=str(folder))
    assert not comparison.within
    assert comparison.protocol == {'split': ('test[:100]', 'test'), 'features': ('inception', None)}
    assert comparison.other == ('train.seed is 0, 3 in the recipe',)
    *_, known, differs, end = comparison.lines()
    assert (known, differs) == ('open      the width: 3', 'differs   train.seed is 0, 3 in the recipe')
    assert end == f'run with gap: {comparison.found["value"] - 2.5:+.4f}'
    assert json.loads(verify.record(comparison, tmp_path).read_text())['open'] == ['the width: 3']


def test_a_row_in_nats_is_compared_with_bits_per_dimension(gaussian):
    """64 pixels of bits, each ln 2 nats."""
    comparison, folder = gaussian
    row = dataclasses.replace(ledger.get('digits-gaussian'), metric='nats', value=2.943 * 44.3614, tolerance=0.5)
    found = verify.compare(row, run=str(folder)).found
    assert found['value'] == pytest.approx(44.3614 * comparison.found['value'], rel=1e-5)
    assert found['std_err'] == pytest.approx(44.3614 * comparison.found['std_err'], rel=1e-5)


def test_a_density_in_nats_is_that_of_images_with_values_in_the_unit_interval(gaussian):
    """64 bins of 1 / 17 each."""
    comparison, folder = gaussian
    row = dataclasses.replace(ledger.get('digits-gaussian'), metric='ais_nats', value=50.0)
    found = verify.compare(row, run=str(folder)).found
    assert found['value'] == pytest.approx(64 * math.log(17) - 44.3614 * comparison.found['value'], rel=1e-5)


def test_a_row_in_nats_of_logits_takes_that_part_of_the_bound(gaussian, monkeypatch):
    """And a run that has no such part says so."""
    _, folder = gaussian
    row = dataclasses.replace(ledger.get('digits-gaussian'), metric='logit_log_likelihood_nats', value=-100.0)
    with pytest.raises(UserError, match='has no density of logits; digits-gaussian needs'):
        verify.compare(row, run=str(folder))
    rows = verify.results.read(folder / 'results.jsonl')
    told = [{**entry, 'details': {'density_of_logits': 2.5}} for entry in rows]
    monkeypatch.setattr(verify.results, 'read', lambda path: told)
    assert verify.compare(row, run=str(folder)).found['value'] == pytest.approx(-2.5 * 44.3614, rel=1e-5)


def test_a_recipe_that_keeps_its_best_checkpoint_is_scored_there(tiny, tmp_path):
    best = ('checkpoint.every=2', 'checkpoint.keep_best=1', 'checkpoint.best_metric=evaluation/bits_per_dim',
            'train.evaluate_every=2', 'train.evaluate_samples=0')  # fmt: skip
    monitor.train(tiny('gaussian', *best), tmp_path, quiet=True)
    rows = read_rows(tmp_path / 'metrics.jsonl')
    for scores, expected in (({2: 3.0, 4: 2.0}, 4), ({2: 2.0, 4: 3.0}, 2), ({2: 2.0}, 2)):
        kept = [{**row, 'evaluation/bits_per_dim': scores.get(row['step'])} for row in rows]
        (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in kept))
        assert verify._chosen(tmp_path) == expected


def test_evidence_is_recorded_with_its_protocol(gaussian, tmp_path):
    comparison, _ = gaussian
    kept = json.loads(verify.record(comparison, tmp_path).read_text())
    assert kept['value'] == comparison.found['value'] and kept['protocol']['dequantisation'] == 'uniform'
    described = ledger.describe(comparison.row, tmp_path)
    assert (described['status'], described['outdated']) == (ledger.REPRODUCED, '')
    assert kept['code'] == package.code() and kept['cores'] > 0
    assert kept['seconds']['training'] > 0 and kept['seconds']['evaluation'] > 0


def test_what_else_was_measured_of_a_run_is_not_taken_for_the_recipe(gaussian):
    """A later row with another seed of evaluation, as a hand-made evaluation leaves it, lies beside the recipe's."""
    comparison, folder = gaussian
    harness.evaluate(folder, ['evaluation.seed=7', 'evaluation.metrics=likelihood'], quiet=True)
    newest = results.read(folder / 'results.jsonl')[-1]
    assert newest['protocol']['seed'] == 7 and newest['value'] != comparison.found['value']
    assert verify.compare(comparison.row, run=str(folder)).found['value'] == comparison.found['value']


def test_a_run_that_is_killed_knows_which_code_began_it(tmp_path, monkeypatch):
    def killed(recipe, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(monitor, 'train', killed)
    with pytest.raises(KeyboardInterrupt):
        verify.compare(ledger.get('digits-gaussian'), workdir=str(tmp_path / 'run'))
    assert json.loads((tmp_path / 'run' / verify.CODE).read_text()) == {'code': package.code()}


def test_a_run_that_other_code_trained_is_no_evidence_of_this_code(gaussian, tmp_path):
    row, (_, folder) = ledger.get('digits-gaussian'), gaussian
    kept = (folder / verify.CODE).read_text()
    (folder / verify.CODE).write_text('{"code": "another"}')
    comparison = verify.compare(row, run=str(folder))
    (folder / verify.CODE).write_text(kept)
    assert comparison.other[-1] == 'the run was trained by other code; move it aside to train anew'
    verify.record(comparison, tmp_path)
    assert ledger.describe(row, tmp_path)['outdated'] == 'other code'


def test_the_exit_status_tells_reproduced_from_gap(gaussian, monkeypatch, capsys):
    _, folder = gaussian
    assert cli.main(['verify', 'digits-gaussian', f'--run={folder}']) == 0
    wrong = dataclasses.replace(ledger.get('digits-gaussian'), value=2.5)
    monkeypatch.setattr(ledger, 'get', lambda name: wrong)
    assert cli.main(['verify', 'digits-gaussian', f'--run={folder}']) == 1
    assert 'run with gap: +0.43' in capsys.readouterr().out


def test_an_unfinished_run_is_no_evidence(gaussian, tmp_path):
    copy = tmp_path / 'run'
    shutil.copytree(gaussian[1], copy)
    summary = json.loads((copy / 'summary.json').read_text())
    (copy / 'summary.json').write_text(json.dumps({**summary, 'complete': False}))
    with pytest.raises(UserError, match='not finished'):
        verify.compare(ledger.get('digits-gaussian'), run=str(copy))


def test_a_row_over_seeds_has_their_mean_and_spread(gaussian, tmp_path):
    """Two trainings that differ in their seed; the first is the run of one seed, for its seed is 0."""
    comparison, _ = gaussian
    row = dataclasses.replace(ledger.get('digits-gaussian'), seeds=2)
    found = verify.compare(row, workdir=str(tmp_path / 'runs')).found
    first, second = found['values']
    assert first == comparison.found['value'] != second
    assert found['value'] == pytest.approx((first + second) / 2)
    assert found['sd'] == pytest.approx(abs(first - second) / 2**0.5)
    assert found['std_err'] == pytest.approx(abs(first - second) / 2)
    again = verify.compare(row, run=str(tmp_path / 'runs'))
    assert again.found == found and 'standard error over 2 trainings' in list(again.lines())[2]
    assert json.loads(verify.record(again, tmp_path).read_text())['values'] == [first, second]
