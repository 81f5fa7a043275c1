"""References that copying does not come near to, and bounds of real images beside the samples."""

import numpy as np
import pytest

from genbench import evaluation
from genbench.data import sources
from genbench.errors import UserError
from genbench.evaluation import bounds, frechet_distance, harness, neighbours, scoring
from genbench.evaluation.protocol import Protocol
from genbench.evaluation.reference import RealImages, RealSets
from genbench.evaluation.results import BOUNDS, COPIES, HELD_OUT
from genbench.training.loop import train
from genbench.training.metrics import read_rows

ASKED = 'evaluation.metrics=fd,fd_train,kd,pr,dc,memorisation'
SIZES = ('evaluation.num_samples=180', 'evaluation.sets=8')


@pytest.fixture(scope='module')
def config(tiny):
    """Digits as their configs measure them, in features of a classifier that knows its train split by heart."""
    return tiny('gaussian', ASKED, *SIZES, 'evaluation.classifier.num_steps=100', 'evaluation.classifier.channels=32')


@pytest.fixture(scope='module')
def real(config):
    return RealSets(config, quiet=True)


@pytest.fixture(scope='module')
def rows(config, tmp_path_factory):
    """{(bound, metric): row}."""
    path = tmp_path_factory.mktemp('bounds') / 'real.jsonl'
    bounds.score_bounds([config], path)
    return {(row['family'], row['metric']): row for row in read_rows(path)}


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
    """The folder of a trained Gaussian; every test evaluates it in its own way."""
    folder = tmp_path_factory.mktemp('runs') / 'gaussian'
    train(config, folder, quiet=True)
    return folder


@pytest.mark.parametrize('metric', ['fd', 'kd', 'precision', 'recall', 'density', 'coverage'])
def test_copies_of_training_images_do_not_outrank_fresh_real_images(rows, metric):
    fresh, copies = (rows[bound, metric] for bound in (HELD_OUT, COPIES))
    sign = 1 if fresh['kind'] == 'distance' else -1
    differences = sign * (np.array(copies['values']) - fresh['values'])
    assert differences.mean() > 0
    if metric == 'fd':  # which ranks: by more than noise
        assert differences.mean() > 2 * differences.std(ddof=1) / len(differences) ** 0.5


def test_against_the_train_split_copies_win_which_is_why_it_does_not_rank(rows):
    assert rows[COPIES, 'fd_train']['value'] < rows[HELD_OUT, 'fd_train']['value'] / 1.3


def test_memorisation_is_told_from_fresh_images(rows):
    assert rows[COPIES, 'copied']['value'] > 0.99 and rows[HELD_OUT, 'copied']['value'] < 0.05
    assert rows[COPIES, 'train_test_gap']['value'] < -5 < -3 < rows[HELD_OUT, 'train_test_gap']['value'] < 3
    assert rows[COPIES, 'authenticity']['value'] == 0


def test_fresh_images_score_what_equal_distributions_do(rows):
    for metric, expected in (('kd', 0), ('density', 1)):
        row = rows[HELD_OUT, metric]
        assert row['value'] == pytest.approx(expected, abs=4 * row['std_err']), metric
    coverage = rows[HELD_OUT, 'coverage']
    assert coverage['details']['ceiling'] == pytest.approx([0.970] * 8, abs=1e-3)
    assert np.mean(coverage['details']['of_ceiling']) == pytest.approx(1, abs=0.03)


def test_degraded_images_score_worse_than_fresh_ones(real, rows):
    """Blurred, and without a class: at the same n and against the same halves."""
    found = {'blurred': [], 'without a class': []}
    for index in range(8):
        fresh = real._order(index)[180:]
        images = real.split.images[fresh].astype(float)
        blurred = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2) + np.roll(images, (1, 1), (1, 2))) / 4
        kept = fresh[real.split.labels[fresh] != 9]
        sets = {
            'blurred': real.extract(np.round(blurred).astype(np.uint8)),
            'without a class': real.held_out.part(np.resize(kept, 180)),
        }
        for name, part in sets.items():
            moments = (*real.half(index).moments['features'], *part.moments['features'])
            found[name].append(frechet_distance(*moments))
    assert rows[HELD_OUT, 'fd']['value'] < min(np.mean(found['blurred']), np.mean(found['without a class'])) - 1


def test_every_row_has_as_many_images_and_sets_as_the_samples(rows):
    assert {bound for bound, _ in rows} == set(BOUNDS)
    for row in rows.values():
        assert (row['n'], len(row['values']), row['protocol']['num_samples'], row['protocol']['sets']) == (
            180,
            8,
            180,
            8,
        )
    assert rows[HELD_OUT, 'fd']['protocol']['reference']['n'] == 180
    assert rows[HELD_OUT, 'fd_train']['protocol']['reference']['n'] == 1437


def test_no_image_is_on_both_sides_and_halves_differ(real):
    for index in range(3):
        half, fresh = real._order(index)[:180], real._order(index)[180:]
        assert not set(half) & set(fresh)
        np.testing.assert_array_equal(real.half(index).outputs['features'], real.held_out.outputs['features'][half])
        np.testing.assert_array_equal(
            real.fresh(index, 180).outputs['features'], real.held_out.outputs['features'][fresh]
        )
    assert set(real._order(0)[:180]) != set(real._order(1)[:180])


def test_samples_and_bounds_meet_the_same_reference(config, rows, run):
    changes = ['evaluation.metrics=fd,fd_train', 'evaluation.num_samples=20', 'evaluation.sets=1']
    found = {row['metric']: row for row in harness.evaluate(run, changes, quiet=True)}
    for metric in ('fd', 'fd_train'):
        protocol, bound = (row['protocol'] for row in (found[metric], rows[COPIES, metric]))
        assert protocol['reference'] == bound['reference'] and protocol['features'] == bound['features']


def measured(config, folder):
    """{(bound, metric): row} of real images in the features of a config."""
    bounds.score_bounds([config], folder / 'real.jsonl')
    return {(row['family'], row['metric']): row for row in read_rows(folder / 'real.jsonl')}


def test_only_where_a_half_is_looked_at_are_fresh_images_drawn_beside_it(tiny, tmp_path):
    """180 of the 360 test images are left beside a half; against the train split all 360 are fresh."""
    changes = ('evaluation.metrics=fd,fd_train,precision_train', 'evaluation.features.name=pixels')
    found = measured(tiny('gaussian', *changes, 'evaluation.num_samples=181', 'evaluation.sets=2'), tmp_path)
    lacking = found[HELD_OUT, 'fd']
    assert (lacking['value'], lacking['kind'], lacking['details']) == (None, 'none', {'images_at_most': 180})
    fresh = found[HELD_OUT, 'fd_train']
    assert fresh['n'] == 181 and len(fresh['values']) == 2 and fresh['sd'] > 0
    assert fresh['protocol']['images']['of'] == 360 and 'half_seed' in fresh['protocol']['images']
    assert found[HELD_OUT, 'precision_train']['value'] > 0.5
    assert all(found[COPIES, metric]['n'] == 181 for metric in ('fd', 'fd_train', 'precision_train'))


def test_a_whole_split_is_drawn_once_and_claims_no_spread(tiny, tmp_path):
    changes = ('evaluation.metrics=fd_train', 'evaluation.features.name=pixels')
    config = tiny('gaussian', *changes, 'evaluation.num_samples=360', 'evaluation.sets=3')
    row = measured(config, tmp_path)[HELD_OUT, 'fd_train']
    splits = (sources.load(sources.open_builder('digits'), split).images for split in ('train', 'test'))
    train, test = (np.round(images.reshape(len(images), -1) / 16 * 255) / 255 for images in splits)
    expected = frechet_distance(train.mean(0), np.cov(train.T), test.mean(0), np.cov(test.T))
    assert row['value'] == pytest.approx(expected, rel=1e-4)
    assert row['sd'] is None and row['values'] == [row['value']] and row['protocol']['sets'] == 3
    assert row['protocol']['images']['drawn'] == 'the whole split'


def test_a_bound_says_how_its_images_were_drawn_and_is_measured_as_samples_are(rows):
    for bound, metric in ((HELD_OUT, 'fd'), (HELD_OUT, 'fd_train'), (COPIES, 'fd')):
        images = rows[bound, metric]['protocol']['images']
        assert images['bound'] == bound and images['n'] == 180 and 'drawn' in images
        assert images['of'] == (360 if bound == HELD_OUT else 1437)
    same = [Protocol(rows[bound, 'fd']['protocol']).measurement.hash for bound in BOUNDS]
    assert same[0] == same[1]


def test_evaluate_says_which_number_of_samples_suits_a_small_split(run, monkeypatch, capsys):
    monkeypatch.setattr(harness.Evaluation, 'run_all', lambda *_: [])
    changes = ['evaluation.metrics=fd,precision_train', 'evaluation.features.name=pixels']
    harness.evaluate(run, [*changes, 'evaluation.num_samples=180'], quiet=True)
    assert 'no row' not in capsys.readouterr().err
    harness.evaluate(run, [*changes, 'evaluation.num_samples=200'], quiet=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if 'no row' in line]
    assert 'fd on digits will have no row of held-out real images' in line
    assert "leaves 180 of the 360 images of 'test'" in line and 'evaluation.num_samples=180' in line


def test_papers_say_what_the_reference_is_and_other_features_take_held_out_images():
    assert scoring.resolve(['fid', 'fd_train', 'fid_held_out'], 'train') == ['fd', 'fd_held_out']
    assert scoring.resolve(['fd', 'fd_held_out', 'fd_train'], 'held_out') == ['fd', 'fd_train']
    assert scoring.METRICS['fd_held_out'].published == 'fid_held_out'


def test_a_comparison_of_two_folders_takes_no_reference_in_the_name_of_a_metric(tmp_path):
    from genbench.evaluation import standalone

    with pytest.raises(UserError, match='fd_train implies a reference.*use fd'):
        standalone.compare('a', 'b', ['fd_train'], standalone.Options())


def test_no_features_are_computed_for_metrics_that_do_not_need_them(run, monkeypatch):
    """With a held-out reference those of the train split are not; where every row is there, none are."""
    asked, compute = [], RealImages.extracted
    monkeypatch.setattr(
        RealImages, 'extracted', lambda self, outputs: asked.append(self.split) or compute(self, outputs)
    )
    changes = ['evaluation.metrics=fd,c2st', 'evaluation.features.name=pixels', 'evaluation.num_samples=20']
    assert len(harness.evaluate(run, changes, quiet=True)) == 2
    assert set(asked) == {'test'}
    del asked[:]
    assert harness.evaluate(run, changes, quiet=True) == [] and asked == []


def test_held_out_images_meet_the_train_split_once_for_all_sets(tiny, tmp_path, monkeypatch):
    config = tiny('gaussian', 'evaluation.metrics=memorisation', 'evaluation.features.name=pixels',
                  'evaluation.num_samples=20', 'evaluation.sets=3')  # fmt: skip
    real = RealSets(config, quiet=True)
    sets = [real.copies(index, 20) for index in range(3)]
    alone = [
        evaluation.memorisation(*(part.outputs['features'] for part in (real.reference, real.half(index), sets[index])))
        for index in range(3)
    ]
    against, compute = [], neighbours.nearest
    monkeypatch.setattr(neighbours, 'nearest', lambda x, y, own=None: against.append(len(x)) or compute(x, y, own))
    for scene, expected in zip(real.scenes(['copied'], sets)['copied'], alone, strict=True):
        assert scene.memorisation.held_out_authenticity == expected.held_out_authenticity
        assert scene.memorisation.train_test_gap == expected.train_test_gap
        np.testing.assert_array_equal(scene.memorisation.flagged, expected.flagged)
    assert against.count(360) == 1 and against.count(180) == 0
