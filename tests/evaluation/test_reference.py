"""References that copying does not come near to, and bounds of real images beside the samples."""

import numpy as np
import pytest

from genbench import evaluation
from genbench.errors import UserError
from genbench.evaluation import frechet_distance, harness, neighbours, scoring
from genbench.evaluation.reference import RealImages, RealSets
from genbench.evaluation.results import BOUNDS, COPIES, HELD_OUT
from genbench.training.metrics import read_rows

ASKED = 'evaluation.metrics=fd,fd_train,kd,pr,dc,memorisation,c2st'
SIZES = ('evaluation.num_samples=180', 'evaluation.sets=8')


@pytest.fixture(scope='module')
def config(tiny):
    """Digits as their configs measure them, in features of a classifier that knows its train split by heart."""
    return tiny('gaussian', ASKED, *SIZES, 'evaluation.classifier.num_steps=150', 'evaluation.classifier.channels=32')


@pytest.fixture(scope='module')
def real(config):
    return RealSets(config, quiet=True)


@pytest.fixture(scope='module')
def rows(config, tmp_path_factory):
    """{(bound, metric): row}."""
    path = tmp_path_factory.mktemp('bounds') / 'real.jsonl'
    harness.score_bounds([config], path)
    return {(row['family'], row['metric']): row for row in read_rows(path)}


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
    for metric, expected in (('kd', 0), ('two_sample_accuracy', 0.5), ('density', 1)):
        row = rows[HELD_OUT, metric]
        assert row['value'] == pytest.approx(expected, abs=4 * row['std_err']), metric
    coverage = rows[HELD_OUT, 'coverage']
    assert coverage['details']['ceiling'] == pytest.approx([0.970] * 8, abs=1e-3)
    assert np.mean(coverage['details']['of_ceiling']) == pytest.approx(1, abs=0.03)


def test_degraded_images_score_worse_than_fresh_ones(real):
    """Blurred, and without a class: at the same n and against the same halves."""
    found = {'fresh': [], 'blurred': [], 'without a class': []}
    for index in range(8):
        fresh = real._order(index)[180:]
        images = real.split.images[fresh].astype(float)
        blurred = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2) + np.roll(images, (1, 1), (1, 2))) / 4
        kept = fresh[real.split.labels[fresh] != 9]
        sets = {
            'fresh': real.fresh(index, 180),
            'blurred': real.extract(np.round(blurred).astype(np.uint8)),
            'without a class': real.held_out.part(np.resize(kept, 180)),
        }
        for name, part in sets.items():
            moments = (*real.half(index).moments['features'], *part.moments['features'])
            found[name].append(frechet_distance(*moments))
    assert np.mean(found['fresh']) < min(np.mean(found['blurred']), np.mean(found['without a class'])) - 1


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


def test_samples_and_bounds_meet_the_same_reference(config, rows, tmp_path):
    from genbench.training.loop import train

    train(config, tmp_path, quiet=True)
    found = {row['metric']: row for row in harness.evaluate(tmp_path, ['evaluation.metrics=fd,fd_train'], quiet=True)}
    for metric in ('fd', 'fd_train'):
        protocol, bound = (row['protocol'] for row in (found[metric], rows[COPIES, metric]))
        assert protocol['reference'] == bound['reference'] and protocol['features'] == bound['features']


def test_there_is_no_row_of_held_out_images_where_they_are_too_few(tiny, tmp_path, capsys):
    config = tiny('gaussian', 'evaluation.metrics=fd', 'evaluation.num_samples=181', 'evaluation.features.name=pixels')
    harness.score_bounds([config], tmp_path / 'real.jsonl')
    assert [row['family'] for row in read_rows(tmp_path / 'real.jsonl')] == [COPIES]
    assert 'has 180 images beside the reference, and evaluation.num_samples is 181' in capsys.readouterr().out


def test_papers_say_what_the_reference_is_and_other_features_take_held_out_images():
    assert scoring.resolve(['fid', 'fd_train', 'fid_held_out'], 'train') == ['fd', 'fd_held_out']
    assert scoring.resolve(['fd', 'fd_held_out', 'fd_train'], 'held_out') == ['fd', 'fd_train']
    assert scoring.METRICS['fd_held_out'].published == 'fid_held_out'


def test_a_comparison_of_two_folders_takes_no_reference_in_the_name_of_a_metric(tmp_path):
    from genbench.evaluation import standalone

    with pytest.raises(UserError, match='fd_train names its reference.*ask for fd'):
        standalone.compare('a', 'b', ['fd_train'], standalone.Options())


def test_no_features_are_computed_for_metrics_that_do_not_need_them(tiny, tmp_path, monkeypatch):
    """With a held-out reference those of the train split are not; where every row is there, none are."""
    from genbench.training.loop import train

    asked, compute = [], RealImages.extracted
    monkeypatch.setattr(
        RealImages, 'extracted', lambda self, outputs: asked.append(self.split) or compute(self, outputs)
    )
    changes = ['evaluation.metrics=fd,c2st', 'evaluation.features.name=pixels']
    train(tiny('gaussian', *changes), tmp_path, quiet=True)
    assert len(harness.evaluate(tmp_path, quiet=True)) == 2
    assert set(asked) == {'test'}
    del asked[:]
    assert harness.evaluate(tmp_path, quiet=True) == [] and asked == []


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
