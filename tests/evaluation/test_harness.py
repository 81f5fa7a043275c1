"""The harness: numbers that depend on their protocol only, rows that say all of it, and nothing done twice."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import features, harness
from genbench.evaluation.results import KEYS
from genbench.training import samplers, sampling
from genbench.training.loop import train
from genbench.training.metrics import read_rows

EVEN, UNEVEN = 'evaluation.batch_size=360', 'evaluation.batch_size=52'  # of the 360 test images; 52 pads the last batch


@pytest.fixture(scope='module')
def evaluated(diffusion_run, tmp_path_factory):
    """The tiny diffusion run with its results."""
    folder = tmp_path_factory.mktemp('evaluated') / 'diffusion'
    shutil.copytree(diffusion_run, folder)
    harness.evaluate(folder, [EVEN], quiet=True)
    return folder


def by_name(rows):
    return {(row['metric'], row['protocol'].get('method')): row for row in rows}


def test_the_batch_size_changes_no_number(evaluated, diffusion_copy):
    whole = by_name(read_rows(evaluated / 'results.jsonl'))
    parts = by_name(harness.evaluate(diffusion_copy, [UNEVEN], quiet=True))
    assert parts.keys() == whole.keys()
    for key, row in parts.items():
        assert row['n'] == whole[key]['n']
        if row['metric'] != 'sampling_images_per_second':  # a speed does depend on it, and says so
            assert row['protocol'] == whole[key]['protocol']
            assert row['value'] == pytest.approx(whole[key]['value'], rel=1e-4), key
            assert (row['std_err'] or 0) == pytest.approx(whole[key]['std_err'] or 0, rel=1e-3), key


def test_every_row_has_all_keys(evaluated):
    rows = read_rows(evaluated / 'results.jsonl')
    assert {'fd', 'kd', 'precision', 'recall', 'bits_per_dim', 'parameters'} <= {row['metric'] for row in rows}
    for row in rows:
        assert tuple(row) == KEYS
        assert (row['family'], row['dataset'], row['checkpoint_step']) == ('diffusion', 'digits', 4)
        assert row['protocol']


def test_likelihoods_are_typed_and_scored_on_the_whole_split(evaluated):
    rows = [row for row in read_rows(evaluated / 'results.jsonl') if row['metric'] == 'bits_per_dim']
    kinds = {'ode_1': 'estimate', 'vlb_beta': 'lower_bound', 'vlb_continuous': 'lower_bound'}
    assert {row['protocol']['method']: row['kind'] for row in rows} == kinds
    assert all(row['n'] == 360 and row['std_err'] > 0 for row in rows)


def test_the_parts_of_a_bound_add_up_to_it(evaluated):
    rows = [
        row for row in read_rows(evaluated / 'results.jsonl') if row['protocol'].get('method', '').startswith('vlb')
    ]
    for row in rows:
        assert len(row['details']) == 3
        assert sum(row['details'].values()) == pytest.approx(row['value'], rel=1e-5)


def test_a_solver_says_how_far_it_is_from_its_limit(evaluated, diffusion_copy):
    def error(folder):
        return by_name(read_rows(folder / 'results.jsonl'))['bits_per_dim', 'ode_1']['discretisation_error']

    harness.evaluate(diffusion_copy, [EVEN, 'evaluation.metrics=likelihood', 'evaluation.ode.num_steps=16'], quiet=True)
    assert 0 < error(diffusion_copy) < error(evaluated) / 4  # 16 steps against 2


def test_disjoint_sets_of_samples_give_mean_and_spread(diffusion_copy):
    rows = by_name(
        harness.evaluate(diffusion_copy, ['evaluation.sets=3', 'evaluation.metrics=fd,kd,pr,dc'], quiet=True)
    )
    assert len(rows) == 6
    for row in rows.values():
        assert len(row['values']) == 3 and row['n'] == 64
        assert row['value'] == pytest.approx(np.mean(row['values']))
        assert row['sd'] == pytest.approx(np.std(row['values'], ddof=1))
    assert len(set(rows['fd', None]['values'])) == 3


def test_the_first_set_is_the_same_however_many_follow(diffusion_copy):
    one, three = (
        harness.evaluate(diffusion_copy, [f'evaluation.sets={sets}', 'evaluation.metrics=fd'], quiet=True)[0]
        for sets in (1, 3)
    )
    assert one['values'][0] == three['values'][0]


def test_samples_are_drawn_once_for_all_metrics(diffusion_copy, monkeypatch):
    harness.evaluate(diffusion_copy, ['evaluation.metrics=fd'], quiet=True)
    monkeypatch.setattr(sampling.Drawer, 'draw', lambda *_: pytest.fail('drawn again'))
    rows = harness.evaluate(
        diffusion_copy, ['evaluation.metrics=kd,c2st', 'evaluation.features.name=pixels'], quiet=True
    )
    assert {row['metric'] for row in rows} == {'kd', 'two_sample_accuracy'}


def test_a_grid_scores_every_cell(diffusion_copy):
    rows = harness.evaluate(
        diffusion_copy, ['evaluation.metrics=fd'], cells=['sampler=ddim,heun', 'nfe=1,3', 'average=ema,current'],
        quiet=True,
    )  # fmt: skip
    cells = {(row['sampler'], row['nfe'], row['protocol']['average']) for row in rows}
    assert cells == {
        (name, nfe, average) for name in ('ddim', 'heun') for nfe in (1, 3) for average in ('ema', 'current')
    }
    assert len({row['protocol_hash'] for row in rows}) == 8


def test_an_interrupted_grid_goes_on_with_the_cell_it_was_in(diffusion_copy, monkeypatch):
    words = {'cells': ['sampler=ddim', 'steps=1,2,3'], 'quiet': True}
    whole = harness.Weights.score_samples

    def stop_at_two(self, cell):
        if int(cell.sampler.num_steps) == 2:
            raise KeyboardInterrupt
        whole(self, cell)

    monkeypatch.setattr(harness.Weights, 'score_samples', stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        harness.evaluate(diffusion_copy, ['evaluation.metrics=fd'], **words)
    assert [row['protocol']['steps'] for row in read_rows(diffusion_copy / 'results.jsonl')] == [1]
    monkeypatch.setattr(harness.Weights, 'score_samples', whole)
    added = harness.evaluate(diffusion_copy, ['evaluation.metrics=fd'], **words)
    assert [row['protocol']['steps'] for row in added] == [2, 3]


def test_an_interrupted_likelihood_goes_on_and_gives_the_same_number(evaluated, diffusion_copy, monkeypatch):
    from genbench.evaluation import likelihood

    monkeypatch.setattr(likelihood, 'SAVE_SECONDS', 0.0)
    scored, batches = [], likelihood.pipeline.padded_batches

    def two_batches(arrays, size):
        for index, batch in enumerate(batches(arrays, size)):
            if index == 2:
                raise KeyboardInterrupt
            scored.append(size)
            yield batch

    monkeypatch.setattr(likelihood.pipeline, 'padded_batches', two_batches)
    with pytest.raises(KeyboardInterrupt):
        harness.evaluate(diffusion_copy, [UNEVEN, 'evaluation.metrics=likelihood'], quiet=True)
    assert len(scored) == 2 and read_rows(diffusion_copy / 'results.jsonl') == []
    monkeypatch.setattr(likelihood.pipeline, 'padded_batches', batches)
    rows = by_name(harness.evaluate(diffusion_copy, [UNEVEN, 'evaluation.metrics=likelihood'], quiet=True))
    expected = by_name(read_rows(evaluated / 'results.jsonl'))
    for key, row in rows.items():
        assert row['n'] == 360
        assert row['value'] == pytest.approx(expected[key]['value'], rel=1e-4)


@pytest.mark.slow
def test_the_number_of_devices_changes_no_number(diffusion_copy, tmp_path):
    found = {}
    for devices in (1, 4):
        folder = shutil.copytree(diffusion_copy, tmp_path / str(devices))
        environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
        words = [
            'evaluate',
            str(folder),
            '--config.evaluation.metrics=fd,kd,pr,dc,likelihood',
            '--config.evaluation.sets=2',
        ]
        done = subprocess.run(
            [sys.executable, '-m', 'genbench', *words], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found[devices] = by_name(read_rows(folder / 'results.jsonl'))
    assert found[1].keys() == found[4].keys()
    for key, row in found[4].items():
        assert row['protocol_hash'] == found[1][key]['protocol_hash']
        assert row['value'] == pytest.approx(found[1][key]['value'], rel=1e-3), key


def test_what_is_there_is_not_computed_again(evaluated):
    before = (evaluated / 'results.jsonl').read_bytes()
    assert harness.evaluate(evaluated, [EVEN], quiet=True) == []
    assert (evaluated / 'results.jsonl').read_bytes() == before


def test_another_protocol_adds_rows_beside_the_old(evaluated, tmp_path):
    folder = shutil.copytree(evaluated, tmp_path / 'run')
    before = read_rows(folder / 'results.jsonl')
    added = harness.evaluate(folder, [EVEN, 'evaluation.metrics=fd', 'evaluation.num_samples=32'], quiet=True)
    assert [(row['metric'], row['n']) for row in added] == [('fd', 32)]
    assert read_rows(folder / 'results.jsonl') == [*before, *added]


def test_an_older_checkpoint_can_be_scored(diffusion_copy):
    (row,) = harness.evaluate(diffusion_copy, ['evaluation.metrics=fd'], step=2, quiet=True)
    assert row['checkpoint_step'] == 2


def test_a_half_written_row_is_computed_again(evaluated, tmp_path):
    results = shutil.copytree(evaluated, tmp_path / 'run') / 'results.jsonl'
    whole = results.read_text()
    results.write_text(whole[:-20])
    (added,) = harness.evaluate(tmp_path / 'run', [EVEN], quiet=True)
    assert read_rows(results)[-1] == added
    assert len(read_rows(results)) == len(whole.splitlines())


def test_a_gan_has_no_likelihood_and_says_so(tiny, tmp_path):
    train(tiny('gan', 'train.num_steps=1'), tmp_path, quiet=True)
    (row,) = harness.evaluate(tmp_path, ['evaluation.metrics=likelihood'], quiet=True)
    assert (row['metric'], row['kind'], row['value'], row['std_err']) == ('bits_per_dim', 'none', None, None)


@pytest.mark.parametrize(
    ('family', 'sampler', 'words'),
    [
        ('gan', 'ancestral:5', "gan cannot use the sampler 'ancestral'.*direct"),
        ('vae', 'ddim:5', "vae cannot use the sampler 'ddim'.*direct"),
        ('diffusion', 'multistep_consistency:2', 'multistep_consistency'),
        ('diffusion', 'dimm:5', 'ddim'),
        ('diffusion', 'ddim:5:2.0', 'guidance, which needs family.conditional'),
        ('diffusion', 'ddim:0', 'is 0; it should be at least 1'),
        ('diffusion', 'ddim:few', 'NAME:STEPS'),
    ],
)
def test_a_sampler_that_cannot_be_says_why(tiny, digits, family, sampler, words):
    with pytest.raises(UserError, match=words):
        samplers.parse(sampler, families.get(family)(tiny(family), digits[0]))


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('evaluation.samplers=direct:1', "'direct'"),
        ('evaluation.metrics=fdd', "There is no metric 'fdd'.*Did you mean fd"),
        ('evaluation.average=polyak', "evaluation.average is 'polyak'; this run has current, ema"),
        ('evaluation.split=validation', "no split 'validation'"),
        ('train.num_steps=9', 'would change the run'),
    ],
)
def test_an_evaluation_that_cannot_be_says_why(diffusion_copy, override, words):
    with pytest.raises(UserError, match=words):
        harness.evaluate(diffusion_copy, [override], quiet=True)
    assert read_rows(diffusion_copy / 'results.jsonl') == []


def test_a_checkpoint_that_is_not_there_is_said(diffusion_copy):
    with pytest.raises(UserError, match='no checkpoint 3; it has 2, 4'):
        harness.evaluate(diffusion_copy, step=3, quiet=True)


@pytest.fixture
def classifier(tiny, digits, tmp_path, monkeypatch):
    """`classifier(seed)` → the feature network of a fresh cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    spec, train_split, _ = digits

    def fitted(seed=0):
        options = tiny('gaussian', f'evaluation.classifier.seed={seed}').evaluation.classifier
        return features.classifier(spec, train_split, options, quiet=True)

    return fitted


def test_the_feature_network_is_deterministic(classifier, digits, tmp_path):
    images = digits[2].images
    first = classifier()
    shutil.rmtree(tmp_path / 'genbench' / 'features')
    second = classifier()
    assert first.name == second.name
    np.testing.assert_array_equal(first(images), second(images))


def test_the_feature_network_is_read_from_the_cache(classifier, tmp_path):
    classifier()
    (path,) = (tmp_path / 'genbench' / 'features').iterdir()
    stored = dict(np.load(path))
    np.savez(path, **{**stored, 'accuracy': 0.125})
    assert classifier().accuracy == 0.125


def test_another_seed_is_another_feature_network(classifier, digits):
    first, second = classifier(0), classifier(1)
    assert first.name != second.name
    assert not np.allclose(first(digits[2].images), second(digits[2].images))


def test_features_do_not_depend_on_the_images_beside(classifier, digits):
    network, images = classifier(), digits[1].images[:600]
    np.testing.assert_allclose(network(images)[:5], network(images[:5]), rtol=1e-5, atol=1e-6)


def test_unlabelled_data_has_no_feature_network(tiny, digits):
    spec = DataSpec('plain', (8, 8, 1), 17)
    with pytest.raises(UserError, match='plain has no labels.*evaluation.metrics'):
        features.classifier(spec, digits[1], tiny('gaussian').evaluation.classifier, quiet=True)


ANNEALING = [
    'evaluation.ais.num_steps=4',
    'evaluation.ais.chains=2',
    'evaluation.ais.leapfrog=2',
    'evaluation.ais.num_images=5',
]


@pytest.mark.parametrize('family', ['vae', 'gan'])
def test_a_model_with_a_decoder_is_scored_by_annealing(tiny, tmp_path, family):
    train(tiny(family, 'train.num_steps=1'), tmp_path, quiet=True)
    (row,) = harness.evaluate(tmp_path, ['evaluation.metrics=ais', *ANNEALING], quiet=True)
    assert (row['metric'], row['kind'], row['n'], row['protocol']['method']) == ('bits_per_dim', 'estimate', 5, 'ais')
    assert row['details']['bidirectional_gap'] > 0


def test_a_model_without_a_decoder_says_so(diffusion_copy):
    with pytest.raises(UserError, match='This diffusion model has no decoder'):
        harness.evaluate(diffusion_copy, ['evaluation.metrics=ais'], quiet=True)


def test_a_remainder_of_samples_compiles_no_second_program(diffusion_copy, monkeypatch):
    sizes, whole = [], sampling.sample
    monkeypatch.setattr(
        sampling, 'sample', lambda b, state, keys, *rest: sizes.append(len(keys)) or whole(b, state, keys, *rest)
    )
    options = ['evaluation.metrics=fd', 'evaluation.sets=3', 'evaluation.num_samples=30', 'evaluation.batch_size=64']
    harness.evaluate(diffusion_copy, [*options, 'evaluation.samplers=ddim:1'], quiet=True)  # 90 images: 64 and 26
    assert sizes == [64]  # traced once
