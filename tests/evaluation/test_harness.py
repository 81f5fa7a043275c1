"""The harness: numbers that depend on their protocol only, rows that say all of it, and nothing done twice."""

import shutil

import numpy as np
import pytest

from genbench import families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.evaluation import features, harness
from genbench.evaluation.results import KEYS
from genbench.training import sampling
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
    assert {row['protocol']['method']: row['kind'] for row in rows} == {'ode': 'estimate', 'vlb': 'lower_bound'}
    assert all(row['n'] == 360 and row['std_err'] > 0 for row in rows)


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
        ('diffusion', 'ddim:0', 'at least one step'),
        ('diffusion', 'ddim:few', 'NAME:STEPS'),
    ],
)
def test_a_sampler_that_cannot_be_says_why(tiny, digits, family, sampler, words):
    with pytest.raises(UserError, match=words):
        sampling.parse_sampler(sampler, families.get(family)(tiny(family), digits[0]))


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('evaluation.samplers=direct:1', "'direct'"),
        ('evaluation.metrics=fdd', "No metric is called 'fdd'.*Did you mean fd"),
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
